"""The example agents: `mesh.examples.orders` and `mesh.examples.issues`.

`FOLDER` holds their topics.yaml and the folder `agents` with their modules and `agents/samples`. In the source tree it
is the root of the checkout, in an installed package it is this folder. Commands run the agents by topics.yaml, as
`agents.orders.pricing:price`; a package called `agents` of another project is not touched by that.
"""

from pathlib import Path

_HERE = Path(__file__).parent
FOLDER = _HERE if (_HERE / "topics.yaml").is_file() else _HERE.parents[1]
__path__ = [str(FOLDER / "agents")]
