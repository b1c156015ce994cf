"""A test double that stands in for Prodigy, the licensed annotation tool by Explosion. It is not Prodigy.

It is written from Prodigy's documentation, public recipes and forum threads alone; no line of it comes from the
product. It has what the recipes of odkeras use. PRODIGY_DOUBLE_VERSION (1.18 when unset) chooses the version that it
plays; `eras.py` lists what differs.

Attested, by the documentation or by public recipes: the names to import and where they are, the keys of the
components, the three signatures of `progress`, the order update - progress - database in old versions, lazy batches,
exclusion of what the dataset has, the ignored hash keys, the precedence of configurations, the REST routes, and what
plac and radicli, which are the real ones here, make of a signature.

Inferred, where the worst case was chosen: how 4-tuples become radicli arguments; that other tuples fail there; that
unknown components are an error; the order of update and database in newer versions (PRODIGY_DOUBLE_UPDATE=before_db
or after_db changes it); that handlers run on ever changing threads; that a recipe file is not in `sys.modules`; that
newer image loaders give paths; that names attested since a version are missing before it.
"""

from prodigy.core import recipe
from prodigy.eras import current_era
from prodigy.util import log, set_hashes

__version__ = current_era().version
__all__ = ["__version__", "log", "recipe", "set_hashes"]
