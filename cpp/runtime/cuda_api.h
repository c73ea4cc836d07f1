// The few functions of the CUDA runtime library that are used here, declared by hand and found when the program runs.
// Types and values are those of CUDA 12 and 13 (tests/cpp/cuda_declarations.cpp compares them with CUDA's own header).
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "runtime/runtime.h"

struct CUstream_st;
struct CUevent_st;
struct CUgraphExec_st;

namespace omni2 {

using CudaStatus = int;  // cudaError_t
constexpr CudaStatus kCudaSuccess = 0;
constexpr unsigned kCudaStreamNonBlocking = 1;    // does not wait for the legacy default stream
constexpr unsigned kCudaEventBlockingSync = 1;    // who waits sleeps
constexpr unsigned kCudaEventDisableTiming = 2;

struct CudaApi {
    std::string library;  // as loaded

    CudaStatus (*cudaGetDeviceCount)(int* count);
    CudaStatus (*cudaDeviceGetStreamPriorityRange)(int* least, int* greatest);
    CudaStatus (*cudaStreamCreateWithPriority)(CUstream_st** stream, unsigned flags, int priority);
    CudaStatus (*cudaStreamDestroy)(CUstream_st* stream);
    CudaStatus (*cudaStreamSynchronize)(CUstream_st* stream);
    CudaStatus (*cudaStreamWaitEvent)(CUstream_st* stream, CUevent_st* event, unsigned flags);
    CudaStatus (*cudaEventCreateWithFlags)(CUevent_st** event, unsigned flags);
    CudaStatus (*cudaEventDestroy)(CUevent_st* event);
    CudaStatus (*cudaEventRecord)(CUevent_st* event, CUstream_st* stream);
    CudaStatus (*cudaEventSynchronize)(CUevent_st* event);
    CudaStatus (*cudaMemcpyAsync)(void* to, const void* from, size_t bytes, int kind, CUstream_st* stream);
    CudaStatus (*cudaLaunchHostFunc)(CUstream_st* stream, void (*function)(void*), void* data);
    CudaStatus (*cudaGraphLaunch)(CUgraphExec_st* graph, CUstream_st* stream);
    CudaStatus (*cudaGetLastError)();
    const char* (*cudaGetErrorName)(CudaStatus status);
    const char* (*cudaGetErrorString)(CudaStatus status);
};

// Loads `library`; empty: OMNI2_CUDART, or the system's. Throws RuntimeFailure where it cannot be loaded or lacks a
// function. A library stays loaded as long as the process: CUDA's own threads may still be in it.
std::shared_ptr<const CudaApi> load_cuda_api(const std::string& library);

// What a call that failed says: function, name and number of the error, its text, and what helps against it.
RuntimeFailure cuda_failure(const CudaApi& api, const char* function, CudaStatus status);

// Throws cuda_failure() unless the status is success.
void check(const CudaApi& api, const char* function, CudaStatus status);

}  // namespace omni2
