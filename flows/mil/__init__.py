"""Multiple instance learning: the variants, one small file each. A bag is a set of instances of which only the bag's
class is known; class 0 is a bag in which nothing was found.

What a build function returns is one of two things.

* A network (`bagnet.BagNet`): `net(instances B x N x ..., mask B x N) -> logits B x K`. True in the mask is an
  instance, False padding, which changes nothing; without a mask all are. `net.scores(instances, mask) -> B x N`.
* An estimator (`estimators.BagClassifier`): `fit(bags, y)` and `predict(bags) -> log-probabilities (n, K)`, where bags
  is a list of arrays (instances, features); `scores(bag) -> (instances,)`; `state()` is all that it learned, as arrays.

Scores of instances are how much each one of a bag speaks for a finding (any class but 0), in a unit of the variant's
own: the higher the more. They are what the variant itself says where it says something of instances (its instance
classifier, its attention before the softmax), else what it says of a bag that holds this instance alone.
`metamed.training.mil.instance_scores(answer, bag) -> float32 (instances,)` gives them for whatever was trained. A run
keeps those of its test bags beside its predictions, in `predictions.npz`: `instance`, the place of each in the
dataset's images, and `instance_score`, float16, fold after fold.
"""
