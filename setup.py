"""The compiled kernels. They are optional: without a C compiler the same values come from numpy, only slower."""

from setuptools import Extension, setup


def kernel(name: str, *sources: str) -> Extension:
    """Files of C as a module."""
    return Extension(
        name,  # beside the package, not in it: a checkout, which shadows the package, finds it too
        list(sources),
        # no fused operations: values are those of numpy, to the last bit of every grey level; Python's own -fwrapv
        # would keep loops over 3 * i from being vectorised
        extra_compile_args=["-O3", "-ffp-contract=off", "-fno-math-errno", "-fopenmp-simd", "-fno-wrapv"],
        py_limited_api=True,
        optional=True,
    )


KERNELS = [
    kernel("_metamed_pixels", "metamed/metafeatures/pixels.c", "metamed/metafeatures/fourier.c"),
    kernel("_metamed_triplets", "metamed/crowd/triplets.c"),
]

setup(ext_modules=KERNELS, options={"bdist_wheel": {"py_limited_api": "cp311"}})
