// The functions of the CUDA runtime that a call of a plan makes, in the place
// of the real ones, which would fail without a device. Declared here rather
// than by the runtime's header: the second differs between its versions in
// arguments that are of no use here.
#include <cstddef>

extern "C" {

int cudaMemsetAsync(void*, int, size_t, void*) { return 0; }

// No stream is captured.
int cudaStreamGetCaptureInfo(void*, int* status) {
  *status = 0;
  return 0;
}
int cudaStreamGetCaptureInfo_v2(void*, int* status) {
  return cudaStreamGetCaptureInfo(nullptr, status);
}

}  // extern "C"
