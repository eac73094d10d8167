"""The compiled kernel. It is optional: without a C compiler the same values come from numpy, only slower."""

from setuptools import Extension, setup

PIXELS = Extension(
    "_metamed_pixels",  # beside the package, not in it: a checkout, which shadows the package, finds it too
    ["metamed/metafeatures/pixels.c"],
    # no fused operations: values are those of numpy, to the last bit of every grey level
    extra_compile_args=["-O3", "-ffp-contract=off", "-fno-math-errno", "-fopenmp-simd"],
    py_limited_api=True,
    optional=True,
)

setup(ext_modules=[PIXELS], options={"bdist_wheel": {"py_limited_api": "cp311"}})
