"""Each option is declared once: a new one appears on every surface, and every surface says whose value is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from odkeras.cli import app
from odkeras.config import AnnotateSettings, SessionSettings, TrainingSettings, declared_options
from odkeras.config.commands import IN_A_PROJECT, WITHOUT_A_PROJECT
from odkeras.config.run import read_run, write_run
from odkeras.config.settings import LEAST_STEPS
from odkeras.config.sources import effective_values, read_project_file, unknown_variables
from odkeras.errors import ConfigError, SetupError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "pipeline.config").touch()
    return tmp_path / "pipeline.config"


NEW_OPTION = '''
import sys
from importlib.machinery import SourceFileLoader

sys.dont_write_bytecode = True  # of a settings.py that is not the one on the disk
PLACE = b"    replay: Annotated["
OPTION = b"""
    shininess: Annotated[
        int, Meta(ge=0), Option("How shiny.", "shn", on="annotate simulate trainer recipe", allowed="0 or more")
    ] = 3
"""
read = SourceFileLoader.get_data

def get_data(self, path):
    if "config" in path and "settings.cpython" in path:
        raise OSError("compiled")
    data = read(self, path)
    return data.replace(PLACE, OPTION + PLACE) if path.endswith("config/settings.py") else data

SourceFileLoader.get_data = get_data
'''


def test_a_new_option_is_one_edit(config: Path) -> None:
    """Declared in one place, it is a flag, an argument of the recipe, a variable, a key, and a row of the docs."""
    (config.parent / "odkeras.toml").write_text("shininess = 7\n")
    code = f"""{NEW_OPTION}
import json
from pathlib import Path
from typer.testing import CliRunner
from odkeras.integrations.prodigy import command_line
from odkeras.cli import app, annotate
from odkeras.web import server
sys.path.insert(0, "scripts")
import docs_hooks
seen = []
server.run_annotate = lambda settings: seen.append(settings.shininess)
run = lambda *more, **env: CliRunner().invoke(app, ["annotate", "d", "{config.parent}", "{config}", *more], env=env)
outputs = [run(), run(ODKERAS_SHININESS="8"), run("-shn", "9", ODKERAS_SHININESS="8")]
(Path("{config}").parent / "odkeras.toml").unlink()
outputs += [run(), run("--shininess", "-1"), run(ODKERAS_SHININESS="-2")]
table = docs_hooks.command_sections(dict(docs_hooks.read_commands()))
print(json.dumps({{
    "values": seen,
    "refused": [str(each.exception) for each in outputs[4:]],
    "help": "--shininess" in CliRunner().invoke(app, ["annotate", "--help"]).output,
    "trainer": "--shininess" in CliRunner().invoke(app, ["trainer", "--help"]).output,
    "recipe": command_line.recipe_arguments()["shininess"][:3],
    "docs": "`--shininess`" in table and "`ODKERAS_SHININESS`" in table,
}}))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "values": [7, 8, 9, 3],
        "refused": ["--shininess is -1; allowed: 0 or more", "ODKERAS_SHININESS is -2; allowed: 0 or more"],
        "help": True,
        "trainer": True,
        "recipe": ["How shiny", "option", "shn"],
        "docs": True,
    }


def test_flags_and_short_flags_are_unique() -> None:
    for command in IN_A_PROJECT | WITHOUT_A_PROJECT:
        shorts = [each.option.short for each in declared_options(command) if each.option.short]
        assert len(shorts) == len(set(shorts)), command


class TestProjectFile:
    def write(self, config: Path, text: str) -> Path:
        path = config.parent / "odkeras.toml"
        path.write_text(text, encoding="utf-8")
        return path

    def test_values_of_every_type(self, config: Path) -> None:
        self.write(
            config,
            """
            steps-per-epoch = 20
            eval_split = 0.2
            run_eval = true
            threshold = "auto"
            model_dir = "m"
            label = ["car", "van"]
            """,
        )
        assert read_project_file(config) == {
            "steps_per_epoch": 20,
            "eval_split": 0.2,
            "run_eval": True,
            "threshold": "auto",
            "model_dir": config.parent / "m",
            "label": ("car", "van"),
        }

    def test_without_the_file(self, config: Path) -> None:
        assert read_project_file(config) == {}

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("evalsplit = 0.2", "there is no option 'evalsplit'; did you mean eval_split?"),
            ("colour = 1", "there is no option 'colour'; known: ip, port, model_name, data_dir, "),
            ("eval_split = 2", "eval_split is 2; allowed: a share of the answers"),
            ('run_eval = "yes"', "run_eval is 'yes'; allowed: "),
            ('order = "best"', "order is 'best'; allowed: sequential, random, uncertain"),
            ("eval_split =", "cannot be read: "),
        ],
    )
    def test_wrong_files_are_refused_by_name_and_key(self, config: Path, text: str, message: str) -> None:
        path = self.write(config, text)
        with pytest.raises(ConfigError) as caught:
            read_project_file(config)
        assert str(caught.value).startswith(f"{path}: ") and message in str(caught.value)


class TestEffectiveValues:
    """A flag overrides the environment, which overrides the file, which overrides the default."""

    def rows(self, config: Path, given: dict[str, object], **environment: str) -> dict[str, tuple[object, str]]:
        rows = effective_values(config, "recipe", given, environment)
        return {row.declared.name: (row.value, row.origin) for row in rows}

    def test_what_overrides_what(self, config: Path) -> None:
        (config.parent / "odkeras.toml").write_text("steps_per_epoch = 1\neval_steps = 2\ncontrol = 0.3\n")
        rows = self.rows(
            config,
            {"steps_per_epoch": 7},
            ODKERAS_STEPS_PER_EPOCH="8",
            ODKERAS_EVAL_STEPS="9",
            ODKERAS_RUN_EVAL="true",
            ODKERAS_LABEL="car,van",
            ODKERAS_MODEL_DIR="m",
        )
        assert rows["steps_per_epoch"] == (7, "--steps-per-epoch")
        assert rows["eval_steps"] == (9, "ODKERAS_EVAL_STEPS")
        assert rows["run_eval"] == (True, "ODKERAS_RUN_EVAL")
        assert rows["label"] == (("car", "van"), "ODKERAS_LABEL")
        assert rows["model_dir"] == (Path("m"), "ODKERAS_MODEL_DIR")
        assert rows["control"] == (0.3, f"{config.parent / 'odkeras.toml'}: control")
        assert rows["temp_files_num"] == (5, "")

    @pytest.mark.parametrize(
        ("name", "text"),
        [("STEPS_PER_EPOCH", "many"), ("EVAL_SPLIT", "2"), ("THRESHOLD", "high"), ("RUN_EVAL", "perhaps")],
    )
    def test_a_wrong_variable_is_named(self, config: Path, name: str, text: str) -> None:
        with pytest.raises(ConfigError, match=f"^ODKERAS_{name} is "):
            self.rows(config, {}, **{f"ODKERAS_{name}": text})


class TestCommands:
    """Each command names the source of a wrong value: the flag, the environment variable, or file and key. The message
    about a variable named the flag."""

    @pytest.mark.parametrize(
        ("line", "option", "value"),
        [
            ("train {project}", "batch_size", "many"),
            ("eval {project}", "eval_steps", "0"),
            ("export {project}", "tf_logging_level", "15"),
            ("stats {project}", "draw_seconds", "-1"),
            ("simulate truth.csv {project}", "annotations", "0"),
            ("annotate d s {project}", "port", "70000"),
            ("serve --model-name m --model-base-path e", "rest_api_port", "65536"),
            ("predict images --model-name m", "min_score", "1.5"),
        ],
    )
    def test_a_wrong_value(
        self, config: Path, monkeypatch: pytest.MonkeyPatch, line: str, option: str, value: str
    ) -> None:
        command = [*line.format(project=config.parent).split()]
        (declared,) = [each for each in declared_options(command[0]) if each.name == option]
        written = declared.written(command[0])
        flag = [written, value] if written.startswith("-") else ["127.0.0.1", value]
        assert self.refusal(*command, *flag).startswith(f"{written} is ")
        monkeypatch.setenv(declared.variable, value)
        assert self.refusal(*command).startswith(f"{declared.variable} is ")
        monkeypatch.delenv(declared.variable)
        if "{project}" in line:
            path = config.parent / "odkeras.toml"
            path.write_text(f"{option} = {value!r}" if value == "many" else f"{option} = {value}")
            assert self.refusal(*command).startswith(f"{path}: {option} is ")

    def test_what_is_set_for_the_page_is_not_for_the_model_server(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """ODKERAS_HOST would open the server, which has no token, too; ODKERAS_THRESHOLD may be auto."""
        environment = {"ODKERAS_HOST": "0.0.0.0", "ODKERAS_THRESHOLD": "auto", "ODKERAS_MODEL_NAME": "m"}
        environment["ODKERAS_MODEL_BASE_PATH"] = "export"
        for command, name, value in (("serve", "rest_api_host", "127.0.0.1"), ("predict", "min_score", 0.5)):
            values = {row.declared.name: row.value for row in effective_values(None, command, {}, environment)}
            assert values[name] == value

    def refusal(self, *arguments: str) -> str:
        error = CliRunner().invoke(app, list(arguments)).exception
        assert isinstance(error, ConfigError), error
        return str(error)

    def test_flags_override_run_json_and_the_environment_does_not(
        self, config: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings = SessionSettings(config=config, tf_logging_level=30)
        settings.project.create()
        line = ["trainer", "--config", str(write_run(settings))]
        levels: list[int] = []

        def stop(level: int) -> None:
            levels.append(level)
            raise SetupError("far enough")

        monkeypatch.setattr("odkeras.logs.configure_logging", stop)
        monkeypatch.setenv("ODKERAS_TF_LOGGING_LEVEL", "20")
        for flags in ([], ["--tf-logging-level", "10"]):
            CliRunner().invoke(app, [*line, *flags])
        assert levels == [30, 10]

    def test_required_options_may_come_from_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert "Missing option '--export-dir'" in CliRunner().invoke(app, ["rollback"]).output
        monkeypatch.setenv("ODKERAS_EXPORT_DIR", "nowhere")
        assert "nowhere" in str(CliRunner().invoke(app, ["rollback"]).exception)

    def test_a_flag_replaces_its_alternative_in_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ODKERAS_MODEL_NAME", "cars")
        result = CliRunner().invoke(app, ["predict", ".", "--export-dir", "nowhere"])
        assert str(result.exception).startswith("nowhere: no such directory")
        monkeypatch.setenv("ODKERAS_EXPORT_DIR", "nowhere")
        result = CliRunner().invoke(app, ["predict", "."])
        assert str(result.exception).startswith("give --model-name, for a model server, or --export-dir")


def test_misspelt_variables_are_reported() -> None:
    (message,) = unknown_variables({"ODKERAS_EVAL_SPLITT": "1", "ODKERAS_EVAL_SPLIT": "0.1", "ODKERAS_HOME": "x"})
    assert message == "the environment variable ODKERAS_EVAL_SPLITT is no option; did you mean ODKERAS_EVAL_SPLIT?"


class TestRunFile:
    def test_there_and_back(self, config: Path) -> None:
        settings = SessionSettings(config=config, eval_split=0.2, steps_per_epoch=7, threshold="auto")
        settings.project.create()
        path = write_run(settings, "http://gpu-box:8501")
        run = read_run(path)
        assert path == config.parent / "model" / "run.json"
        assert (run.config, run.data_dir, run.serving_url) == (config, config.parent / "data", "http://gpu-box:8501")
        assert (run.eval_split, run.steps_per_epoch) == (0.2, 7)

    @pytest.mark.parametrize(
        ("change", "message"),
        [({"eval_splitt": 1}, "eval_splitt"), ({"eval_split": 3}, "eval_split"), ({"replay": 1}, "replay")],
    )
    def test_a_wrong_file_is_refused(self, config: Path, change: dict[str, object], message: str) -> None:
        path = config.parent / "run.json"
        path.write_text(json.dumps({"config": str(config), **change}))
        with pytest.raises(ConfigError, match=message):
            read_run(path)

    def test_a_value_that_only_the_option_refuses_is_named_with_the_file(self, config: Path) -> None:
        path = config.parent / "run.json"
        path.write_text(json.dumps({"config": str(config), "eval_steps": 0}))
        with pytest.raises(ConfigError, match=r"run\.json: cannot be used .*: eval_steps is 0; allowed: "):
            read_run(path)

    def test_a_directory_that_cannot_be_written(self, config: Path) -> None:
        (config.parent / "model").write_text("a file in the way")
        with pytest.raises(SetupError, match="cannot write the trainer's configuration"):
            write_run(SessionSettings(config=config))

    @pytest.mark.parametrize("content", ["", "[]", "{", '{"odkeras": "1"}'])
    def test_no_run_file(self, tmp_path: Path, content: str) -> None:
        (tmp_path / "run.json").write_text(content)
        with pytest.raises(ConfigError, match="cannot be used as the trainer's configuration"):
            read_run(tmp_path / "run.json")


def test_wrong_values_are_refused_wherever_settings_are_made() -> None:
    for settings in (TrainingSettings, SessionSettings):
        with pytest.raises(ConfigError, match="steps_per_epoch is -2; allowed: a number of steps, or -1"):
            settings(config=Path("c"), steps_per_epoch=-2)
    with pytest.raises(ConfigError, match="answers_per_round is 0; allowed: 1 or more"):
        AnnotateSettings(config=Path("c"), dataset="d", source="s", answers_per_round=0)


@pytest.mark.parametrize(
    ("options", "one_pass", "steps"),
    [
        ({"steps_per_epoch": 7}, 3, 7),
        ({"steps_per_epoch": 7000, "max_round_steps": 300}, 3, 7000),  # the maximum is about rounds of one pass
        ({}, 3, LEAST_STEPS),
        ({"steps_per_epoch": 0}, 3, LEAST_STEPS),
        ({}, LEAST_STEPS + 1, LEAST_STEPS + 1),
        ({}, 125_000, 500),
        ({"max_round_steps": 300}, 301, 300),
        ({"max_round_steps": 20}, 3, 20),
        ({"max_round_steps": 0}, 125_000, 125_000),
    ],
)
def test_steps_of_a_round(options: dict[str, int], one_pass: int, steps: int) -> None:
    assert TrainingSettings(config=Path("c"), **options).steps_of_round(one_pass) == steps


def test_help_stays_quick() -> None:
    code = "import sys, odkeras.config; print(*{'numpy', 'PIL', 'tensorflow', 'typer'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True, env=dict(os.environ)
    )
    assert done.stdout.strip() == ""
