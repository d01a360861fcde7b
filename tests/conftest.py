"""Eight simulated devices, annotations checked at run time, and no warning unnoticed."""

import os

# Devices are counted when jax starts, so before anything imports it.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import jax

jax.config.update("jax_num_cpu_devices", 8)

from jaxtyping import install_import_hook

install_import_hook("imgrec", "beartype.beartype").__enter__()
