"""Records: what identifies a result must go on identifying it when records get new fields."""

import hashlib
import json

from unperturbed.records import Recipe, TrainingStage

# As the first ledgers hold it: before recipes knew Adam, schedules and clipping, and stages what was learned before.
FIRST = (
    '{"data":{"name":"cifar10","settings":{"contrast":1.0}},"data_digest":"00","epoch":4,"kind":"training",'
    '"mechanisms":[],"model":{"name":"lenet","settings":{"classes":10}},"recipe":{"batch_size":125,"drop_at":0.5,'
    '"drop_by":10.0,"epochs":4,"learning_rate":0.02,"momentum":0.9,"precision":"float32","weight_decay":0.0005},'
    '"revision":1,"seed":0,"start":null}'
)


def test_what_older_ledgers_hold_is_found_again():
    stage = TrainingStage.model_validate_json(FIRST)
    assert stage.canonical() == FIRST
    assert stage.digest() == hashlib.sha256(FIRST.encode()).hexdigest()


def test_a_later_field_that_is_used_is_part_of_the_record():
    stage = TrainingStage.model_validate_json(FIRST)
    changed = [{"clip": 5.0}, {"optimiser": "adam"}, {"schedule": ((0.5, 0.1),)}]
    digests = {stage.model_copy(update={"recipe": stage.recipe.model_copy(update=each)}).digest() for each in changed}
    assert len(digests | {stage.digest()}) == 4
    assert stage.model_copy(update={"weights_digest": "00"}).digest() not in digests | {stage.digest()}
    started = stage.model_copy(update={"start": stage})
    assert json.loads(started.canonical())["start"] == json.loads(FIRST)


def test_a_record_is_read_back_as_it_was():
    recipe = Recipe(epochs=2, schedule=((0.5, 0.1),), clip=1.0)
    assert Recipe.model_validate_json(recipe.canonical()) == recipe
