import numpy as np
import torch

from shoal.rl import FlatAdam


def problem():
    """Two leaves, views into one flat tensor, and a loss."""
    generator = torch.Generator().manual_seed(0)
    flat, gradients = torch.randn(6, generator=generator), torch.zeros(6)
    target = torch.randn(6, generator=generator)
    leaves = []
    for part, gradient in zip(flat.split([4, 2]), gradients.split([4, 2]), strict=True):
        leaf = part.detach().requires_grad_()
        leaf.grad = gradient
        leaves.append(leaf)
    return flat, gradients, leaves, lambda: 10 * (torch.cat(leaves) - target).pow(4).sum()


def test_equals_torch_adam_with_gradient_clipping():
    flat, gradients, _, loss = problem()
    optimizer = FlatAdam(flat, gradients)
    reference, _, reference_leaves, reference_loss = problem()
    torch_adam = torch.optim.Adam(reference_leaves, lr=0.01, eps=1e-5)
    for _ in range(20):
        optimizer.minimize(loss(), learning_rate=0.01, max_grad_norm=0.5)
        torch_adam.zero_grad(set_to_none=False)
        reference_loss().backward()
        torch.nn.utils.clip_grad_norm_(reference_leaves, 0.5)
        torch_adam.step()
    torch.testing.assert_close(flat, reference, rtol=1e-6, atol=1e-7)


def test_gradients_smaller_than_the_limit_are_left_alone():
    free, limited = problem(), problem()
    for made, limit in ((free, None), (limited, 1e9)):
        FlatAdam(made[0], made[1]).minimize(made[3](), learning_rate=0.1, max_grad_norm=limit)
    torch.testing.assert_close(free[0], limited[0])


def test_continues_from_saved_moments():
    flat, gradients, _, loss = problem()
    optimizer = FlatAdam(flat, gradients)
    optimizer.minimize(loss(), learning_rate=0.01, max_grad_norm=0.5)
    moments, steps, before = optimizer.get_moments(), optimizer.steps, flat.clone()
    optimizer.minimize(loss(), learning_rate=0.01, max_grad_norm=0.5)
    after = flat.clone()
    flat.copy_(before)
    resumed = FlatAdam(flat, gradients)
    resumed.set_state(moments, steps)
    resumed.minimize(loss(), learning_rate=0.01, max_grad_norm=0.5)
    assert torch.equal(flat, after)
    assert moments.shape == (2, 6)
    assert moments.dtype == np.float32
