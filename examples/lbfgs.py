"""Training with SciPy's L-BFGS
============================

A small network in float64, all data in one batch, and a smooth loss: where second-order methods
beat Adam. `scipy.optimize.minimize` sees one vector of weights, a loss and a gradient; `forward`
and `backward` of a `Sequential` give them. The task is to sum the numbers of a sequence that are
marked (Hochreiter and Schmidhuber 1997).
"""

import numpy as np
from scipy.optimize import minimize
from side_by_side import draw

import fastrnn
from fastrnn import losses, optim

N, T, EVALUATIONS = 200, 12, 300
rng = np.random.default_rng(0)
X = np.stack([rng.random((N, T)), rng.random((N, T)) < 2 / T], axis=-1)
y = X.prod(axis=2).sum(axis=1)


def new_model():
    layers = [
        fastrnn.GRU(2, 8, return_sequences=False, dtype=np.float64),
        fastrnn.Linear(8, 1, dtype=np.float64),
    ]
    return fastrnn.Sequential(layers, seed=0)


def loss_and_gradients(model):
    output, tape = model.forward(X)
    loss, dy = losses.mse.value_and_grad(output, y[:, None])
    return loss, model.backward(tape, dy)[1]


# SciPy's vector, and the weights that are views of it.


def put(model, vector):
    start = 0
    for weights in model.parameters().values():
        weights[...] = vector[start : start + weights.size].reshape(weights.shape)
        start += weights.size


def flat(arrays):
    return np.concatenate([a.ravel() for a in arrays.values()])


def train_with_lbfgs():
    model, curve = new_model(), []

    def of(vector):
        put(model, vector)
        loss, grads = loss_and_gradients(model)
        curve.append(loss)
        return loss, flat(grads)

    start = flat(model.parameters())
    found = minimize(of, start, jac=True, method="L-BFGS-B", options={"maxfun": EVALUATIONS})
    put(model, found.x)
    return model, curve


def train_with_adam():
    model, curve = new_model(), []
    adam = optim.Adam(lr=0.1)  # the best of 0.02, 0.05, 0.1 and 0.2 here
    for _ in range(EVALUATIONS):
        loss, grads = loss_and_gradients(model)
        curve.append(loss)
        adam.step(model.parameters(), grads)
    return model, curve


curves = {"Adam": train_with_adam()[1]}
model, curves["L-BFGS"] = train_with_lbfgs()
for name, curve in curves.items():
    print(f"{name}: loss {min(curve):.1e} after {len(curve)} gradients")
print("Look at the slopes at the end: L-BFGS has learned the curvature, and Adam goes on slowly.")


def plot(axes):
    for name, curve in curves.items():
        axes.plot(np.minimum.accumulate(curve), label=name)


draw("lbfgs", plot, xlabel="gradients", ylabel="least loss", yscale="log")
