# The kernels, for the CUDA compiler and for the simulator of the tests.
set(LORICA_CUDA_KERNELS
  adamw.cu
  attention/backward.cu
  attention/forward.cu
  attention/padded_stats.cu
  attention/plain.cu
  dropout.cu
  elementwise.cu
  gelu.cu
  logits.cu
  norm.cu
  rope.cu
  rows.cu
  swiglu.cu
  thin_products.cu
)
list(TRANSFORM LORICA_CUDA_KERNELS PREPEND ${CMAKE_CURRENT_LIST_DIR}/)
