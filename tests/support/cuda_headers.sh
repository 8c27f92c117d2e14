# To be sourced: puts headers that tests of the CUDA code read beside the
# toolkit's into build/headers and on CMAKE_PREFIX_PATH. With them the tests plan
# cuDNN's attention and compare the layouts of matrix products with CuTe's, and
# lorica is built with cuDNN's attention. Without, CMake says what it leaves out.
headers=$PWD/build/headers
python3 -m pip install --quiet --disable-pip-version-check --retries 1 \
  --no-deps --upgrade --target "$headers" \
  nvidia-cudnn-frontend==1.32.0 nvidia-cutlass==4.2.0.0 ||
  echo "Without cudnn-frontend and CuTe, the tests of both are left out." >&2
export CMAKE_PREFIX_PATH=$headers:$headers/cutlass_library/source${CMAKE_PREFIX_PATH:+:$CMAKE_PREFIX_PATH}
