# Finds cuDNN 9 and cudnn_frontend.h and defines cuDNN::frontend, for the sources
# that include the latter. The version is cuDNN's. They may lie in CMAKE_PREFIX_PATH, beside the CUDA
# toolkit, or in the Python packages nvidia-cudnn-frontend (of which only the
# headers are used) and nvidia-cudnn-cu12 or -cu13.
include(HeaderVersion)
include(PythonPackage)
python_package_folder(frontend nvidia-cudnn-frontend include)
python_package_folder(library
  nvidia-cudnn-cu${CUDAToolkit_VERSION_MAJOR} nvidia/cudnn)
find_path(CUDNN_FRONTEND_INCLUDE_DIR cudnn_frontend.h HINTS ${frontend})
find_path(CUDNN_INCLUDE_DIR cudnn.h
  HINTS ${CUDAToolkit_INCLUDE_DIRS} ${library}/include)
find_library(CUDNN_LIBRARY NAMES cudnn libcudnn.so.9
  HINTS ${CUDAToolkit_LIBRARY_DIR} ${CUDAToolkit_LIBRARY_ROOT}
        ${CUDAToolkit_TARGET_DIR} ${library}
  PATH_SUFFIXES lib lib64)
header_version(CUDNNFrontend_VERSION "${CUDNN_INCLUDE_DIR}/cudnn_version.h"
  CUDNN_MAJOR CUDNN_MINOR CUDNN_PATCHLEVEL)
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(CUDNNFrontend REQUIRED_VARS
  CUDNN_FRONTEND_INCLUDE_DIR CUDNN_INCLUDE_DIR CUDNN_LIBRARY CUDA_nvrtc_LIBRARY
  VERSION_VAR CUDNNFrontend_VERSION)
if(CUDNNFrontend_FOUND AND NOT TARGET cuDNN::frontend)
  add_library(cuDNN::frontend INTERFACE IMPORTED)
  target_include_directories(cuDNN::frontend SYSTEM INTERFACE
    ${CUDNN_FRONTEND_INCLUDE_DIR} ${CUDNN_INCLUDE_DIR}
    ${CUDAToolkit_INCLUDE_DIRS})
  # Without writing graphs as JSON, which doubles the time to compile.
  target_compile_definitions(cuDNN::frontend INTERFACE
    CUDNN_FRONTEND_SKIP_JSON_LIB)
  # By its path: CUDA::nvrtc would add the toolkit's substitute for the driver.
  target_link_libraries(cuDNN::frontend INTERFACE
    ${CUDNN_LIBRARY} ${CUDA_nvrtc_LIBRARY} CUDA::cudart)
endif()
