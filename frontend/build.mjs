// Bundles the page into a directory (the first argument): index.html, page.js, page.css, THIRD_PARTY_LICENSES.txt.
import { build } from "esbuild";
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const out = process.argv[2];
if (!out) throw new Error("say where to: node build.mjs DIRECTORY");

// Kept out of what is shipped, at hand for whoever has the sources.
const MAPS = "maps";
// Compiled into the packages they belong to, whose own packages are not installed.
const INLINED = { svelte: { license: "MIT", author: "the contributors of Svelte" } };

const result = await build({
  entryPoints: { page: "src/page.tsx", style: "src/page.css" },
  outdir: MAPS,
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  jsx: "automatic",
  jsxImportSource: "preact",
  sourcemap: "external",
  legalComments: "none",
  metafile: true,
  logLevel: "warning",
});

rmSync(out, { recursive: true, force: true });
mkdirSync(out, { recursive: true });
copyFileSync(join(MAPS, "page.js"), join(out, "page.js"));
copyFileSync(join(MAPS, "style.css"), join(out, "page.css"));
writeFileSync(join(out, "THIRD_PARTY_LICENSES.txt"), licenses(bundled(Object.keys(result.metafile.inputs))));
// Last: whoever asks whether the page is built looks for this one.
copyFileSync("index.html", join(out, "index.html"));

/** Names of the packages that the inputs come from, those whose code they contain as their source maps say, and all that these need. */
function bundled(inputs) {
  const names = new Set();
  const add = (name) => {
    if (!name || names.has(name)) return;
    names.add(name);
    Object.keys(manifest(name)?.dependencies ?? {}).forEach(add);
  };
  for (const input of inputs) {
    add(packageOf(input));
    const map = `${input}.map`;
    if (!input.includes("node_modules/") || !existsSync(map)) continue;
    for (const source of JSON.parse(readFileSync(map, "utf8")).sources) add(packageOf(source));
  }
  return [...names].sort();
}

function manifest(name) {
  const file = join("node_modules", name, "package.json");
  return existsSync(file) ? JSON.parse(readFileSync(file, "utf8")) : null;
}

function packageOf(path) {
  return /.*node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path)?.[1];
}

function licenses(names) {
  const parts = names.map((name) => {
    const about = manifest(name) ?? INLINED[name];
    if (!about) throw new Error(`the licence of ${name} is not known: add it to INLINED`);
    return [`${name} ${about.version ?? ""}`.trim() + ` (${about.license})`, "", licenseText(name, about)].join("\n");
  });
  return ["The page contains these packages.", ...parts].join(`\n\n${"=".repeat(80)}\n`) + "\n";
}

/** The package's own text; where it comes without one, that of the licence it names, with its author. */
function licenseText(name, about) {
  const directory = join("node_modules", name);
  const file = existsSync(directory) && readdirSync(directory).find((entry) => /^licen[cs]e(\.|$)/i.test(entry));
  if (file) return readFileSync(join(directory, file), "utf8").trim();
  const texts = join("node_modules", "spdx-license-list", "licenses", `${about.license}.json`);
  const author = typeof about.author === "string" ? about.author : about.author?.name;
  if (!existsSync(texts) || !author) throw new Error(`no text of the licence of ${name} is at hand`);
  const { licenseText: text } = JSON.parse(readFileSync(texts, "utf8"));
  return text.replace(/<year> /, "").replace(/<(owner|copyright holders?)>/, author).trim();
}
