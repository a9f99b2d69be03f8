# compare_representations.py: do NMNC and backprop learn alike representations? python compare_representations.py
import matplotlib.pyplot as plt
from rsatoolbox.data import Dataset
from rsatoolbox.rdm import calc_rdm, compare

import rulezoo

runs = {rule: rulezoo.train(rule, "digits-cnn", seed=0) for rule in ("backprop", "nmnc")}
models = {rule: run.model() for rule, run in runs.items()}  # plain modules of torch
networks = {rule: run.network for rule, run in runs.items()}
networks["untrained"] = networks["backprop"].untrained()  # the same initial weights
test = networks["backprop"].data().test
images, labels = test.x[:100], test.y[:100]


def rdms(network):
    """Site → the dissimilarity of each pair of images there."""
    activities = network.activities(images).items()
    return {site: calc_rdm(Dataset(a.flatten(1).numpy()), "correlation") for site, a in activities}


found = {name: rdms(network) for name, network in networks.items()}
sites = [site for site in found["backprop"] if site.endswith(".post")]
alike = {
    name: [compare(found["backprop"][site], found[name][site], "spearman").item() for site in sites]
    for name in ("nmnc", "untrained")
}
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
for name, values in alike.items():
    left.plot(sites, values, "o-", label=name)
    print(name, dict(zip(sites, values, strict=True)))
left.set(ylabel="rank correlation with backprop's RDM", ylim=(0, 1))
left.legend()
order = labels.argsort()
right.imshow(found["nmnc"]["fc.post"].get_matrices()[0][order][:, order])
right.set(title="NMNC, fc.post: images in order of their digit")
figure.savefig("representations.png")
for rule, model in models.items():
    print(rule, (model(test.x).argmax(1) == test.y).float().mean().item())
