// cuDNN without a GPU: it can be loaded, and finds no way to compute anything.

#include <cstddef>
#include <cstdint>
#include <cstdlib>

extern "C" {

int cudnnCreate(void** handle) {
    *handle = calloc(1, 64);
    return 0;
}
size_t cudnnGetVersion() { return 92800; }
const char* cudnnGetErrorString(int) { return "stub"; }
int cudnnGetStream(void*, void** stream) {
    *stream = nullptr;
    return 0;
}
int cudnnBackendCreateDescriptor(int, void** descriptor) {
    *descriptor = calloc(1, 4096);
    return 0;
}
int cudnnBackendGetAttribute(void*, int, int, int64_t, int64_t* count, void*) {
    if (count) *count = 0;
    return 0;
}

}  // extern "C"
