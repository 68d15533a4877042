"""Where weights that were published for ImageNet lie, and whether a file is the one that its name says.

Source: torchvision's list of weights (``ResNet50_Weights.IMAGENET1K_V1``, right about 76.13 % of ImageNet), and
``torch.hub.load_state_dict_from_url``: the last eight letters of a name are the first of the file's SHA-256.
Nothing is loaded here (``models.published``).
"""

import re
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from unperturbed.data.files import Examined, folder_of
from unperturbed.records import SpecError

NAME = "imagenet-weights"
FILE = "resnet50-0676ba61.pth"
NAMED = re.compile(r"-([0-9a-f]{8,64})$")  # of a name without its ending

INSTRUCTIONS = f"""\
{NAME} are not fetched for you. Download them and put them into {{folder}}:

  from https://download.pytorch.org/models/{FILE} (98 MB), ResNet-50 as torchvision published it, licence BSD 3-clause;
    its SHA-256 begins with 0676ba61, as its name says.

A file with the same names of tensors, .safetensors or .pth, may lie there too: name it in the study, as
model = {{{{ name = "imagenet-resnet", weights = "FILE" }}}}.

Then: unperturbed data verify {NAME}
"""


def find_weights(name: str, root: Path | None) -> Path:
    """Return where the file of weights ``name`` lies.

    Raises:
        SpecError: it does not.
    """
    path = folder_of(NAME, root) / name
    if not path.is_file():
        raise SpecError(f"{path} is missing; `unperturbed data fetch {NAME}` says where it comes from.")
    return path


def examine(folder: Path) -> Iterator[Examined]:
    """Yield each file of weights, and whether its SHA-256 begins as its name ends; the one above if there is none."""
    paths = sorted(path for path in folder.glob("*") if path.is_file()) or [folder / FILE]
    for path in paths:
        named = NAMED.search(path.stem)
        if not path.is_file():
            yield Examined(path.name, False, f"`unperturbed data fetch {NAME}` says where it comes from")
        elif named is None:
            yield Examined(path.name, True, "a name that does not end in the beginning of its SHA-256")
        else:
            digest = sha256(path.read_bytes()).hexdigest()
            fits = digest.startswith(named[1])
            yield Examined(path.name, True, "" if fits else f"a SHA-256 that begins with {digest[: len(named[1])]}")
