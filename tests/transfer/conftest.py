"""Networks of PyTorch with numbers in which a fault would show."""

import numpy as np
import pytest


@pytest.fixture(scope="session")
def randomised():
    """randomised(network): in evaluation mode, no weight or statistic at its initial value."""
    torch = pytest.importorskip("torch")

    def randomise(network):
        generator = torch.Generator().manual_seed(0)
        for name, tensor in network.state_dict().items():
            if tensor.dtype == torch.int64:
                continue
            noise = torch.randn(tensor.shape, generator=generator)
            if name.endswith("running_var"):
                tensor.copy_(0.5 + noise.abs())
            elif tensor.ndim > 1 and "pos" not in name:
                tensor.copy_(noise * np.sqrt(2 / tensor[0].numel()))
            else:  # biases begin at 0, scales at 1
                tensor.copy_(0.2 * noise + (tensor == 1))
        return network.eval()

    return randomise
