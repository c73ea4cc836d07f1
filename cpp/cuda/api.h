// The few functions of the CUDA runtime library that are used here, declared by hand and found when the program runs.
// Types and values are those of CUDA 12.8 to 13 (tests/cpp/cuda_declarations.cpp compares them with CUDA's own header).
#pragma once

#include <cstddef>
#include <memory>
#include <string>

struct CUstream_st;
struct CUevent_st;
struct CUgraph_st;
struct CUgraphExec_st;
struct CUlib_st;
struct CUkern_st;

namespace omni2 {

using CudaStatus = int;  // cudaError_t
constexpr CudaStatus kCudaSuccess = 0;
constexpr unsigned kCudaStreamNonBlocking = 1;  // does not wait for the legacy default stream
constexpr unsigned kCudaEventBlockingSync = 1;  // a thread that waits sleeps
constexpr unsigned kCudaEventDisableTiming = 2;
constexpr unsigned kCudaHostAllocPortable = 1;  // pinned for every context
constexpr unsigned kCudaHostAllocMapped = 2;    // the device can reach it too
constexpr int kCudaCaptureThreadLocal = 1;      // other threads may allocate and wait meanwhile
constexpr int kCudaCapabilityMajor = 75;        // cudaDeviceAttr, as the next
constexpr int kCudaCapabilityMinor = 76;
constexpr int kCudaMaxDynamicSharedMemory = 8;  // cudaFuncAttribute

// The errors with a remedy of their own.
constexpr CudaStatus kCudaOutOfMemory = 2;
constexpr CudaStatus kCudaInitializationError = 3;
constexpr CudaStatus kCudaStubLibrary = 34;
constexpr CudaStatus kCudaInsufficientDriver = 35;
constexpr CudaStatus kCudaDevicesUnavailable = 46;
constexpr CudaStatus kCudaNoDevice = 100;
constexpr CudaStatus kCudaInvalidImage = 200;
constexpr CudaStatus kCudaNoImageForDevice = 209;
constexpr CudaStatus kCudaUncorrectableMemory = 214;
constexpr CudaStatus kCudaUnsupportedPtx = 222;
constexpr CudaStatus kCudaIllegalAddress = 700;
constexpr CudaStatus kCudaLaunchTimeout = 702;
constexpr CudaStatus kCudaHardwareStack = 714;
constexpr CudaStatus kCudaIllegalInstruction = 715;
constexpr CudaStatus kCudaMisalignedAddress = 716;
constexpr CudaStatus kCudaLaunchFailure = 719;
constexpr CudaStatus kCudaDriverMismatch = 803;
constexpr CudaStatus kCudaCompatNotSupported = 804;
constexpr CudaStatus kCudaFirstCaptureError = 900;  // cudaErrorStreamCaptureUnsupported
constexpr CudaStatus kCudaLastCaptureError = 907;   // cudaErrorCapturedEvent

enum class CopyKind { kHostToHost, kHostToDevice, kDeviceToHost, kDeviceToDevice };  // cudaMemcpyKind

struct CudaDim3 {  // dim3
    unsigned x = 1, y = 1, z = 1;
};

// cudaDeviceProp: it begins with the name in every version; what follows differs, and takes less than this.
struct CudaDeviceProperties {
    char name[256];
    char rest[4096];
};

// name(function, its parameters): all of them, once
// clang-format off
#define OMNI2_CUDA_FUNCTIONS(name)                                                                                     \
    name(cudaGetDeviceCount, (int* count))                                                                             \
    name(cudaDriverGetVersion, (int* version))                                                                         \
    name(cudaRuntimeGetVersion, (int* version))                                                                        \
    name(cudaGetDeviceProperties, (CudaDeviceProperties * properties, int device))                                     \
    name(cudaDeviceGetAttribute, (int* value, int attribute, int device))                                              \
    name(cudaDeviceGetStreamPriorityRange, (int* least, int* greatest))                                                \
    name(cudaStreamCreateWithPriority, (CUstream_st * *stream, unsigned flags, int priority))                          \
    name(cudaStreamDestroy, (CUstream_st * stream))                                                                    \
    name(cudaEventCreateWithFlags, (CUevent_st * *event, unsigned flags))                                              \
    name(cudaEventDestroy, (CUevent_st * event))                                                                       \
    name(cudaEventRecord, (CUevent_st * event, CUstream_st * stream))                                                  \
    name(cudaEventSynchronize, (CUevent_st * event))                                                                   \
    name(cudaEventElapsedTime, (float* milliseconds, CUevent_st* start, CUevent_st* stop))                             \
    name(cudaMalloc, (void** memory, size_t bytes))                                                                    \
    name(cudaFree, (void* memory))                                                                                     \
    name(cudaMemGetInfo, (size_t* free, size_t* total))                                                                \
    name(cudaHostAlloc, (void** memory, size_t bytes, unsigned flags))                                                 \
    name(cudaFreeHost, (void* memory))                                                                                 \
    name(cudaHostGetDevicePointer, (void** device, void* host, unsigned flags))                                        \
    name(cudaMemcpyAsync, (void* to, const void* from, size_t bytes, int kind, CUstream_st* stream))                   \
    name(cudaMemcpy2DAsync, (void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width,             \
                             size_t rows, int kind, CUstream_st* stream))                                              \
    name(cudaMemsetAsync, (void* memory, int byte, size_t bytes, CUstream_st* stream))                                 \
    name(cudaStreamBeginCapture, (CUstream_st * stream, int mode))                                                     \
    name(cudaStreamEndCapture, (CUstream_st * stream, CUgraph_st * *graph))                                            \
    name(cudaGraphDestroy, (CUgraph_st * graph))                                                                       \
    name(cudaGraphInstantiate, (CUgraphExec_st * *executable, CUgraph_st * graph, unsigned long long flags))           \
    name(cudaGraphLaunch, (CUgraphExec_st * executable, CUstream_st * stream))                                         \
    name(cudaGraphExecDestroy, (CUgraphExec_st * executable))                                                          \
    name(cudaLibraryLoadData, (CUlib_st * *library, const void* code, int* jit_options, void** jit_values,             \
                               unsigned jit_count, int* options, void** values, unsigned count))                       \
    name(cudaLibraryUnload, (CUlib_st * library))                                                                      \
    name(cudaLibraryGetKernel, (CUkern_st * *kernel, CUlib_st * library, const char* symbol))                          \
    name(cudaFuncSetAttribute, (const void* kernel, int attribute, int value))                                         \
    name(cudaLaunchKernel, (const void* kernel, CudaDim3 grid, CudaDim3 block, void** arguments,                       \
                            size_t shared_memory, CUstream_st* stream))                                                \
    name(cudaGetLastError, ())
// clang-format on

struct CudaApi {
    std::string library;  // as loaded

#define OMNI2_DECLARE(function, parameters) CudaStatus(*function) parameters;
    OMNI2_CUDA_FUNCTIONS(OMNI2_DECLARE)
#undef OMNI2_DECLARE

    const char* (*cudaGetErrorName)(CudaStatus status);
    const char* (*cudaGetErrorString)(CudaStatus status);
};

// Loads `library`; empty: OMNI2_CUDART, or the system's. Throws CudaError where it cannot be loaded or lacks a
// function. A library stays loaded as long as the process: CUDA's own threads may still be in it.
std::shared_ptr<const CudaApi> load_cuda_api(const std::string& library);

}  // namespace omni2
