"""92 photographs of objects, and how unlike each other they are to monkeys and people.

Source: Kriegeskorte, Mur, Ruff, Kiani, Bodurka, Esteky, Tanaka and Bandettini (2008), Neuron 60:1126,
doi:10.1016/j.neuron.2008.10.043: 674 neurons of monkey inferior temporal cortex (IT), and 316 voxels of human IT in
four people and two sessions. Judgements of 16 people: Mur et al. (2013), Frontiers in Psychology 4:128,
doi:10.3389/fpsyg.2013.00128. Distributed with rsatoolbox.

Dissimilarities are kept as the 4,186 pairs of images, row by row above the diagonal.
"""

from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, UInt8
from numpy import ndarray
from scipy.io import loadmat
from scipy.spatial.distance import squareform

from unperturbed.data.files import Download, OfficialFile, OfficialSet, Places, read

SUPPLEMENT = "Kriegeskorte_Neuron2008_supplementalData.mat"
ADDRESS = "https://raw.githubusercontent.com/rsagroup/rsatoolbox"
COMMITS = {
    SUPPLEMENT: "9ac4b5cdcb702c02481cabba33c551d187d50b6c",
    "92_brainRDMs.mat": "a019e37ee631456aa99425efb33cb4e26e9ea181",
    "92_behavRDMs.mat": "8ee4a8f6b55f788acbee29521916f5f38f2926be",
    "92_modelRDMs.mat": "ccd23d83e494c2e213a618a5fbc6143d051478c6",
}
CONTENTS = (
    OfficialFile(SUPPLEMENT, 3603779, "md5", "d680895b747044338f32fdbd3e96074b"),
    OfficialFile("92_brainRDMs.mat", 224663, "md5", "f562b895d93eac142724525f11226092"),
    OfficialFile("92_behavRDMs.mat", 982719, "md5", "79813942c9fe965707ef1ce33aafcac4"),
    OfficialFile("92_modelRDMs.mat", 333004, "md5", "44eb0f031e80a379de3c7a6dbc0b72b4"),
)
FILES = OfficialSet(
    name="images92",
    folders=("images92",),
    files=CONTENTS,
    downloads=tuple(
        Download(file.name, f"{ADDRESS}/{COMMITS[file.name]}/demos/92imageData/{file.name}", f"md5:{file.checksum}")
        for file in CONTENTS
    ),
)


@dataclass(frozen=True, eq=False)
class Images92:
    """The photographs, what they show, and dissimilarities of their pairs."""

    images: UInt8[ndarray, "92 175 175 3"]
    categories: tuple[str, ...]  # in the words of the authors, one for each image
    labels: dict[str, Bool[ndarray, " 92"]]  # human, face, animal, natural
    monkey: Float64[ndarray, " 4186"]
    human: Float64[ndarray, " 4186"]  # mean of the sessions below, as published
    sessions: Float64[ndarray, "4 2 4186"]  # person and session
    judgements: Float64[ndarray, "16 4186"]
    models: dict[str, Float64[ndarray, " 4186"]]


def images92(places: Places) -> Images92:
    """Return the 92 images and the dissimilarities.

    Args:
        places: where the files are looked for.

    Raises:
        SpecError: a file is missing, damaged or not the official one.
    """
    contents, _ = read(FILES, places)
    supplement, brains, judgements, models = (_variables(contents[file.name]) for file in FILES.files)
    stimuli = supplement["stimuli_92objs"][0]
    both = supplement["RDMs_mIT_hIT_fig1"][0]["RDM"]
    return Images92(
        images=np.stack(list(stimuli["image"])),
        categories=tuple(str(category.item()) for category in stimuli["category"]),
        labels={name: _flags(stimuli[name]) for name in ("human", "face", "animal", "natural")},
        monkey=both[0].ravel().astype(np.float64),
        human=both[1].ravel().astype(np.float64),
        sessions=np.stack([[_pairs(session) for session in person] for person in brains["RDMs"][0]["RDM"]]),
        judgements=np.stack([_pairs(person) for person in judgements["rdms_behav_92"][0]["RDM"]]),
        models={str(model["name"].item()): _pairs(model["RDM"]) for model in models["Models"][0]},
    )


def _variables(content: bytes) -> dict[str, Any]:
    return loadmat(BytesIO(content))


def _flags(column: np.ndarray) -> np.ndarray:
    return np.array([bool(flag.item()) for flag in column])


def _pairs(matrix: np.ndarray) -> np.ndarray:
    return squareform(matrix.astype(np.float64), checks=False)
