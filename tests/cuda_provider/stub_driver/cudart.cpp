// A libcudart without a GPU behind it, for ONNX Runtime's real CUDA provider: memory is the host's, copies are copies,
// kernels do nothing, and everything that a device would have to do is counted. `stub_count` is the ledger.

#include <cuda_runtime_api.h>
#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>

namespace {

struct Ledger {
    std::mutex mutex;
    std::map<std::string, long> counts;
    std::map<const char*, size_t> memory;  // of the device, by its address

    bool on_device(const void* address) {
        auto next = memory.upper_bound(static_cast<const char*>(address));
        if (next == memory.begin()) return false;
        --next;
        return static_cast<const char*>(address) < next->first + next->second;
    }
};

Ledger& ledger() {
    static auto* one = new Ledger;  // outlives every static object of the libraries above
    return *one;
}

constexpr long kWidth = 3;  // of the flow's causal convolutions

struct Launch {
    dim3 grid, block;
    size_t shared;
    cudaStream_t stream;
};
thread_local Launch pushed;

template <class Handle>
cudaError_t hand_out(Handle* handle) {
    static size_t next = 4096;
    *handle = reinterpret_cast<Handle>(next += 16);
    return cudaSuccess;
}

}  // namespace

extern "C" {

void stub_count(const char* what) {
    std::lock_guard<std::mutex> lock(ledger().mutex);
    ++ledger().counts[what];
}

void stub_reset() {
    std::lock_guard<std::mutex> lock(ledger().mutex);
    ledger().counts.clear();
}

long stub_counted(const char* what) {
    std::lock_guard<std::mutex> lock(ledger().mutex);
    auto found = ledger().counts.find(what);
    return found == ledger().counts.end() ? 0 : found->second;
}

// --- what the compiler calls -------------------------------------------------------------------------------------
void** __cudaRegisterFatBinary(void*) {
    static void* handle;
    return &handle;
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
void __cudaRegisterFunction(void**, const char*, char*, const char*, int, void*, void*, void*, void*, int*) {}
void __cudaRegisterVar(void**, char*, char*, const char*, int, size_t, int, int) {}
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, void* stream) {
    pushed = {grid, block, shared, static_cast<cudaStream_t>(stream)};
    return 0;
}
cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, void* stream) {
    *grid = pushed.grid;
    *block = pushed.block;
    *shared = pushed.shared;
    *static_cast<cudaStream_t*>(stream) = pushed.stream;
    return cudaSuccess;
}
cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* function) {
    *kernel = static_cast<cudaKernel_t>(const_cast<void*>(function));
    return cudaSuccess;
}

// --- launches ----------------------------------------------------------------------------------------------------
static cudaError_t launch(dim3 grid, dim3 block) {
    stub_count("kernel");
    bool possible = grid.x && grid.y && grid.z && block.x && block.x * block.y * block.z <= 1024;
    return possible ? cudaSuccess : cudaErrorInvalidConfiguration;
}
cudaError_t __cudaLaunchKernel(cudaKernel_t, dim3 grid, dim3 block, void**, size_t, cudaStream_t) {
    return launch(grid, block);
}
cudaError_t cudaLaunchKernel(const void*, dim3 grid, dim3 block, void**, size_t, cudaStream_t) {
    return launch(grid, block);
}
cudaError_t cudaLaunchCooperativeKernel(const void*, dim3 grid, dim3 block, void**, size_t, cudaStream_t) {
    return launch(grid, block);
}
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* config, const void*, void**) {
    return launch(config->gridDim, config->blockDim);
}
cudaError_t cudaLaunchHostFunc(cudaStream_t, cudaHostFn_t function, void* argument) {
    stub_count("host function");
    function(argument);
    return cudaSuccess;
}
cudaError_t cudaLibraryLoadData(cudaLibrary_t* library, const void*, cudaJitOption*, void**, unsigned,
                                cudaLibraryOption*, void**, unsigned) {
    return hand_out(library);
}
cudaError_t cudaLibraryGetKernel(cudaKernel_t* kernel, cudaLibrary_t, const char*) { return hand_out(kernel); }
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void*) {
    *attributes = {};
    attributes->maxThreadsPerBlock = 1024;
    attributes->numRegs = 64;
    attributes->binaryVersion = attributes->ptxVersion = 90;
    return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, const void*, int, size_t, unsigned) {
    *blocks = 2;
    return cudaSuccess;
}

// --- the device: an H100's figures -------------------------------------------------------------------------------
cudaError_t cudaGetDeviceCount(int* count) {
    *count = 1;
    return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
    *device = 0;
    return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int) {
    memset(p, 0, sizeof *p);
    strcpy(p->name, "stub");
    p->major = 9;
    p->totalGlobalMem = size_t{80} << 30;
    p->sharedMemPerBlock = 48 << 10;
    p->sharedMemPerBlockOptin = 227 << 10;
    p->sharedMemPerMultiprocessor = 228 << 10;
    p->regsPerBlock = p->regsPerMultiprocessor = 65536;
    p->warpSize = 32;
    p->maxThreadsPerBlock = p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024;
    p->maxThreadsDim[2] = 64;
    p->maxThreadsPerMultiProcessor = 2048;
    p->maxGridSize[0] = 0x7fffffff;
    p->maxGridSize[1] = p->maxGridSize[2] = 65535;
    p->multiProcessorCount = 132;
    p->l2CacheSize = 50 << 20;
    return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
    cudaDeviceProp p;
    cudaGetDeviceProperties(&p, 0);
    switch (attribute) {
        case cudaDevAttrComputeCapabilityMajor: *value = p.major; break;
        case cudaDevAttrComputeCapabilityMinor: *value = p.minor; break;
        case cudaDevAttrMultiProcessorCount: *value = p.multiProcessorCount; break;
        case cudaDevAttrMaxSharedMemoryPerBlock: *value = static_cast<int>(p.sharedMemPerBlock); break;
        case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = static_cast<int>(p.sharedMemPerBlockOptin); break;
        case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = static_cast<int>(p.sharedMemPerMultiprocessor); break;
        case cudaDevAttrWarpSize: *value = p.warpSize; break;
        default: *value = 1;
    }
    return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) {
    *version = CUDART_VERSION;
    return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) { return cudaDriverGetVersion(version); }
const char* cudaGetErrorName(cudaError_t) { return "stub"; }
const char* cudaGetErrorString(cudaError_t) { return "an error of the stub driver"; }
static int anything(...) { return 0; }
cudaError_t cudaGetDriverEntryPointByVersion(const char*, void** function, unsigned, unsigned long long,
                                             cudaDriverEntryPointQueryResult* result) {
    *function = reinterpret_cast<void*>(anything);
    if (result) *result = cudaDriverEntryPointSuccess;
    return cudaSuccess;
}

// --- memory ------------------------------------------------------------------------------------------------------
// Zeros, and pages that are taken when they are touched: what no kernel has written must not look like a size.
cudaError_t cudaMalloc(void** address, size_t bytes) {
    bytes = bytes ? bytes : 1;
    *address = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (*address == MAP_FAILED) return cudaErrorMemoryAllocation;
    std::lock_guard<std::mutex> lock(ledger().mutex);
    ledger().memory[static_cast<char*>(*address)] = bytes;
    return cudaSuccess;
}
cudaError_t cudaFree(void* address) {
    std::lock_guard<std::mutex> lock(ledger().mutex);
    auto found = ledger().memory.find(static_cast<char*>(address));
    if (found == ledger().memory.end()) return address ? cudaErrorInvalidValue : cudaSuccess;
    munmap(address, found->second);
    ledger().memory.erase(found);
    return cudaSuccess;
}
cudaError_t cudaMallocFromPoolAsync(void** address, size_t bytes, cudaMemPool_t, cudaStream_t) {
    return cudaMalloc(address, bytes);
}
cudaError_t cudaFreeAsync(void* address, cudaStream_t) { return cudaFree(address); }
cudaError_t cudaMallocHost(void** address, size_t bytes) {
    *address = aligned_alloc(4096, (bytes + 8191) / 4096 * 4096);
    return cudaSuccess;
}
cudaError_t cudaHostAlloc(void** address, size_t bytes, unsigned) { return cudaMallocHost(address, bytes); }
cudaError_t cudaFreeHost(void* address) {
    free(address);
    return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t* available, size_t* total) {
    *available = *total = size_t{80} << 30;
    return cudaSuccess;
}
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* address) {
    std::lock_guard<std::mutex> lock(ledger().mutex);
    *attributes = {};
    attributes->type = ledger().on_device(address) ? cudaMemoryTypeDevice : cudaMemoryTypeUnregistered;
    attributes->devicePointer = const_cast<void*>(address);
    return cudaSuccess;
}
cudaError_t cudaMemPoolCreate(cudaMemPool_t* pool, const cudaMemPoolProps*) { return hand_out(pool); }
cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t, cudaMemPoolAttr, void* value) {
    *static_cast<unsigned long long*>(value) = 0;
    return cudaSuccess;
}

// --- copies ------------------------------------------------------------------------------------------------------
static void count_copy(const void* to, const void* from, bool waits) {
    bool here, there;
    {
        std::lock_guard<std::mutex> lock(ledger().mutex);
        here = ledger().on_device(from);
        there = ledger().on_device(to);
    }
    stub_count(here ? (there ? "copy within" : "copy to host") : (there ? "copy to device" : "copy on host"));
    if (waits) stub_count("wait");
}
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind) {
    count_copy(to, from, true);
    memmove(to, from, bytes);
    return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t) {
    count_copy(to, from, false);
    memmove(to, from, bytes);
    std::lock_guard<std::mutex> lock(ledger().mutex);
    // One int64 for the host is a bound of a slice, which a kernel would have made of 0 and a convolution's width.
    if (bytes == sizeof(long) && ledger().on_device(from) && !ledger().on_device(to)) *static_cast<long*>(to) = kWidth - 1;
    return cudaSuccess;
}
cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t pitch, size_t width, size_t rows,
                              cudaMemcpyKind, cudaStream_t) {
    count_copy(to, from, false);
    for (size_t row = 0; row < rows; ++row)
        memmove(static_cast<char*>(to) + row * to_pitch, static_cast<const char*>(from) + row * pitch, width);
    return cudaSuccess;
}
cudaError_t cudaMemcpyFromSymbol(void* to, const void*, size_t bytes, size_t, cudaMemcpyKind) {
    memset(to, 0, bytes);
    return cudaSuccess;
}
cudaError_t cudaMemset(void* to, int value, size_t bytes) {
    stub_count("fill");
    memset(to, value, bytes);
    return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t) { return cudaMemset(to, value, bytes); }

// --- streams and events ------------------------------------------------------------------------------------------
cudaError_t cudaStreamCreate(cudaStream_t* stream) { return hand_out(stream); }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) { return hand_out(stream); }
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned, int) { return hand_out(stream); }
cudaError_t cudaEventCreate(cudaEvent_t* event) { return hand_out(event); }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) { return hand_out(event); }
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t, cudaEvent_t) {
    *milliseconds = 1;
    return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t) {
    stub_count("wait");
    return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t) { return cudaStreamSynchronize(nullptr); }
cudaError_t cudaDeviceSynchronize() { return cudaStreamSynchronize(nullptr); }
cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus* status) {
    *status = cudaStreamCaptureStatusNone;
    return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t* graph) { return hand_out(graph); }
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* graph, cudaGraph_t, unsigned long long) { return hand_out(graph); }
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
    *least = 0;
    *greatest = -5;
    return cudaSuccess;
}
cudaError_t cudaHostGetDevicePointer(void** device, void* host, unsigned) {
    *device = host;
    return cudaSuccess;
}

}  // extern "C"
