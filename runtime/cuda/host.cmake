# The host's side of this room, for lorica and for the tests on fakes.
set(LORICA_CUDA_HOST_SOURCES
  backend.cc
  cudnn_attention.cc
  host_ring.cc
  lora.cc
  matmul.cc
  product_choices.cc
  queue.cc
  recording.cc
)
list(TRANSFORM LORICA_CUDA_HOST_SOURCES PREPEND ${CMAKE_CURRENT_LIST_DIR}/)
