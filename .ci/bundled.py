"""Add to a bill of materials what the wheel itself carries besides our own code: a script and the models.

python .ci/bundled.py dist/cellseg-V.cdx.json
"""

import hashlib
import json
import re
import sys
from pathlib import Path
from typing import Any

RUNTIME = Path(__file__).parent.parent / "runtime"


def component(path: Path, **fields: Any) -> dict[str, Any]:
    """Return a CycloneDX component for a file of the wheel."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    place = f"cellseg/runtime/{path.relative_to(RUNTIME).as_posix()}"
    return {
        "bom-ref": f"bundled:{place}",
        **fields,
        "hashes": [{"alg": "SHA-256", "content": digest}],
        "properties": [{"name": "cellseg:file", "value": place}],
    }


def bundled() -> list[dict[str, Any]]:
    """Return the components, as they lie in the source."""
    script = RUNTIME / "view" / "page" / "openseadragon.min.js"
    head = script.read_text(encoding="utf-8")[:200]
    (version,) = re.findall(r"openseadragon ([\d.]+)", head)
    models = sorted((RUNTIME / "model" / "packaged").glob("*.onnx"))
    return [
        component(
            script,
            type="library",
            name="openseadragon",
            version=version,
            licenses=[{"license": {"id": "BSD-3-Clause"}}],
            purl=f"pkg:npm/openseadragon@{version}",
        ),
        *(
            component(
                path,
                type="machine-learning-model",
                name=path.stem,
                licenses=[{"license": {"id": "Apache-2.0"}}],
            )
            for path in models
        ),
    ]


def main(path: Path) -> None:
    """Add them."""
    bill = json.loads(path.read_text(encoding="utf-8"))
    own = bundled()
    bill["components"] += own
    top = bill["metadata"]["component"]["bom-ref"]
    for entry in bill["dependencies"]:
        if entry["ref"] == top:
            entry["dependsOn"] = sorted([*entry.get("dependsOn", []), *(part["bom-ref"] for part in own)])
    bill["dependencies"] += [{"ref": part["bom-ref"]} for part in own]
    path.write_text(json.dumps(bill, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
