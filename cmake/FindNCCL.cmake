# Finds NCCL as nccl.h and libnccl and defines NCCL::nccl; NCCL_INCLUDE_DIR alone
# is enough for tests that bring their own functions, and NCCL_VERSION is that of
# the header. They may lie in NCCL_ROOT, a CUDA toolkit's folder or the Python
# package nvidia-nccl-cu12 or -cu13.
include(HeaderVersion)
include(PythonPackage)
python_package_folder(library
  nvidia-nccl-cu${CUDAToolkit_VERSION_MAJOR} nvidia/nccl)
find_path(NCCL_INCLUDE_DIR nccl.h HINTS ${CUDAToolkit_INCLUDE_DIRS}
  ${CUDAToolkit_TARGET_DIR} ${library}/include)
find_library(NCCL_LIBRARY NAMES nccl libnccl.so.2
  HINTS ${CUDAToolkit_LIBRARY_DIR} ${CUDAToolkit_LIBRARY_ROOT}
        ${CUDAToolkit_TARGET_DIR} ${library}
  PATH_SUFFIXES lib lib64)
header_version(NCCL_VERSION "${NCCL_INCLUDE_DIR}/nccl.h"
  NCCL_MAJOR NCCL_MINOR NCCL_PATCH)
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(NCCL
  REQUIRED_VARS NCCL_LIBRARY NCCL_INCLUDE_DIR VERSION_VAR NCCL_VERSION)
if(NCCL_FOUND AND NOT TARGET NCCL::nccl)
  add_library(NCCL::nccl UNKNOWN IMPORTED)
  set_target_properties(NCCL::nccl PROPERTIES
    IMPORTED_LOCATION ${NCCL_LIBRARY}
    INTERFACE_INCLUDE_DIRECTORIES ${NCCL_INCLUDE_DIR})
endif()
