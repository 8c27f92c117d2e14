// As much of the CUDA driver as cuDNN needs to finish a plan without a device:
// it may load compiled kernels and set their attributes; whatever asks for a
// device or would run something fails, as it does in the library that the
// toolkit has for linking alone.
extern "C" {

using Result = int;
using Handle = void*;

constexpr Result kNoDevice = 100;
constexpr Result kLinkLibrary = 34;

Result cuInit(unsigned) { return 0; }
Result cuDriverGetVersion(int* version) {
  *version = 13000;
  return 0;
}
Result cuDeviceGetCount(int* count) {
  *count = 0;
  return kNoDevice;
}
Result cuLibraryLoadData(Handle* library, const void*, Handle, Handle, unsigned,
                         Handle, Handle, unsigned) {
  *library = reinterpret_cast<Handle>(0x1000);
  return 0;
}
Result cuLibraryGetKernel(Handle* kernel, Handle, const char*) {
  *kernel = reinterpret_cast<Handle>(0x2000);
  return 0;
}
Result cuLibraryUnload(Handle) { return 0; }
Result cuKernelSetAttribute(int, int, Handle, int) { return 0; }
Result cuKernelGetFunction(Handle* function, Handle) {
  *function = reinterpret_cast<Handle>(0x3000);
  return 0;
}
Result cuFuncSetAttribute(Handle, int, int) { return 0; }
Result cuGetErrorString(Result, const char** text) {
  *text = "a driver without a device";
  return 0;
}

#define LORICA_FAILING_CALLS(F)                  \
  F(cuCtxGetCurrent)                             \
  F(cuCtxGetDevice)                              \
  F(cuCtxGetLimit)                               \
  F(cuCtxPopCurrent)                             \
  F(cuCtxPushCurrent)                            \
  F(cuDeviceGet)                                 \
  F(cuDeviceGetAttribute)                        \
  F(cuDevicePrimaryCtxRelease)                   \
  F(cuDevicePrimaryCtxReset)                     \
  F(cuDevicePrimaryCtxRetain)                    \
  F(cuFuncGetAttribute)                          \
  F(cuGetErrorName)                              \
  F(cuGetExportTable)                            \
  F(cuKernelGetAttribute)                        \
  F(cuLaunchCooperativeKernel)                   \
  F(cuLaunchKernel)                              \
  F(cuLaunchKernelEx)                            \
  F(cuLibraryLoadFromFile)                       \
  F(cuLinkAddData)                               \
  F(cuLinkAddData_v2)                            \
  F(cuLinkAddFile_v2)                            \
  F(cuLinkComplete)                              \
  F(cuLinkCreate)                                \
  F(cuLinkCreate_v2)                             \
  F(cuLinkDestroy)                               \
  F(cuMemcpyDtoH_v2)                             \
  F(cuModuleGetFunction)                         \
  F(cuModuleGetGlobal_v2)                        \
  F(cuModuleLoadData)                            \
  F(cuModuleLoadDataEx)                          \
  F(cuModuleLoadFatBinary)                       \
  F(cuModuleUnload)                              \
  F(cuOccupancyMaxActiveBlocksPerMultiprocessor) \
  F(cuOccupancyMaxPotentialClusterSize)          \
  F(cuStreamGetCtx)                              \
  F(cuStreamSynchronize)                         \
  F(cuTensorMapEncodeTiled)

#define LORICA_FAIL(name) \
  Result name() { return kLinkLibrary; }
LORICA_FAILING_CALLS(LORICA_FAIL)

}  // extern "C"
