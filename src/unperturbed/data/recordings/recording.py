"""What a brain answered to images: one number for each image, repetition, channel and time."""

from dataclasses import dataclass

from jaxtyping import Float, Float64, Int64
from numpy import ndarray

from unperturbed.records import SpecError


@dataclass(frozen=True, eq=False)
class Recordings:
    """The responses of one subject to a list of images, every repetition apart.

    Args:
        subject: who.
        responses: as stored, and mapped to the file where they come from one; in units of the noise if whitened.
        channels: names of the electrodes.
        times: seconds after the onset of the image.
        images: what identifies each image: its folder and file, with a slash between them.
        concepts: the number of the concept of each image, from 0.
        names: the name of each concept.

    Raises:
        SpecError: the parts do not fit each other.
    """

    subject: str
    responses: Float[ndarray, "images repetitions channels times"]
    channels: tuple[str, ...]
    times: Float64[ndarray, " times"]
    images: tuple[str, ...]
    concepts: Int64[ndarray, " images"]
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        expected = (len(self.images), len(self.channels), len(self.times))
        images, _, channels, times = self.responses.shape
        if (images, channels, times) != expected or self.concepts.shape != (images,):
            raise SpecError(
                f"{self.subject}: responses must be (images, repetitions, channels, times) with {expected[0]} images, "
                f"{expected[1]} channels and {expected[2]} times, and a concept for each image; got "
                f"{self.responses.shape} and {self.concepts.shape} concepts."
            )

    def __len__(self) -> int:
        return len(self.images)
