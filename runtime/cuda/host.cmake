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

set(LORICA_CUDA_ATTENTION cudnn CACHE STRING
  "Attention on GPUs: cudnn where it has the shape, cudnn-any-order, or own")
set(kernels_of_own kOwn)
set(kernels_of_cudnn kCudnn)
set(kernels_of_cudnn-any-order kCudnnAnyOrder)
if(NOT DEFINED kernels_of_${LORICA_CUDA_ATTENTION})
  message(FATAL_ERROR "LORICA_CUDA_ATTENTION is ${LORICA_CUDA_ATTENTION}; "
    "it may be cudnn, cudnn-any-order or own")
endif()
set_source_files_properties(${CMAKE_CURRENT_LIST_DIR}/backend.cc PROPERTIES
  COMPILE_DEFINITIONS
  LORICA_CUDA_ATTENTION=${kernels_of_${LORICA_CUDA_ATTENTION}})
