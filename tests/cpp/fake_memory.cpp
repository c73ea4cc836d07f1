// Memory of the device and of the host. Device addresses cannot be read by the host, as on a GPU; what they hold lies
// elsewhere. New memory holds 0xFF, which is NaN in every float type; none is ever at an address that another had.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>

#include "fake_cudart.h"
#include "fake_device.h"

namespace fake {
namespace {

constexpr size_t kAddresses = size_t{1} << 37;
constexpr unsigned char kPoison = 0xFF, kBeyond = 0xA5;

char* reserve() {
    void* begin = mmap(nullptr, kAddresses, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (begin == MAP_FAILED) std::abort();
    return static_cast<char*>(begin);
}

// What the device calls its addresses, and where their bytes are: page by page in use.
char* const addresses = reserve();
char* const bytes_begin = reserve();

size_t page() { return static_cast<size_t>(sysconf(_SC_PAGESIZE)); }
size_t whole_pages(size_t bytes) { return (bytes + page() - 1) / page() * page(); }

size_t limit = size_t{8} << 30, used = 0, next_offset = 0;
int damaged = 0;
auto& living = *new std::map<size_t, size_t>;  // offset → bytes; streams may outlive static objects
std::map<const char*, size_t> pinned;       // begin → bytes

const char* text(int kind) {
    static const char* const kinds[] = {"host to host", "host to device", "device to host", "device to device",
                                        "default"};
    return kinds[kind];
}

bool within_pinned(const void* address) {
    const auto* place = static_cast<const char*>(address);
    auto after = pinned.upper_bound(place);
    if (after == pinned.begin()) return false;
    --after;
    return place < after->first + after->second;
}

// Whether a range is what a side of a copy says it is.
bool fits(const void* address, size_t bytes, bool device) {
    if (bytes == 0) return true;
    return device ? contents(address, bytes) != nullptr : !is_device(address);
}

struct Side {
    const void* begin;
    size_t pitch;
};

// The bytes that `rows` rows of a side take.
size_t extent(const Side& side, size_t width, size_t rows) { return rows ? (rows - 1) * side.pitch + width : 0; }

char* host_view(const void* address, size_t bytes) {
    return is_device(address) ? contents(address, bytes) : static_cast<char*>(const_cast<void*>(address));
}

int enqueue_copy(Side to, Side from, size_t width, size_t rows, int kind, CUstream_st* stream,
                 Lock& lock) {
    if (kind < 0 || kind > 3) return kInvalidValue;
    if (rows > 1 && (to.pitch < width || from.pitch < width)) return kInvalidPitch;
    const size_t to_bytes = extent(to, width, rows), from_bytes = extent(from, width, rows);
    if (!fits(to.begin, to_bytes, kind == 1 || kind == 3) || !fits(from.begin, from_bytes, kind == 2 || kind == 3))
        return kInvalidValue;
    if (from_bytes == 0) return kSuccess;
    std::shared_ptr<std::string> staged;
    if (kind == 1 && !within_pinned(from.begin)) {  // pageable memory may be used again as soon as the call returns
        if (stream && stream->recording) return kCaptureUnsupported;
        staged = std::make_shared<std::string>(static_cast<const char*>(from.begin), from_bytes);
        from.begin = staged->data();
    }
    const bool waits = kind == 2 && !within_pinned(to.begin);  // also as CUDA has it
    if (waits && stream && stream->recording) return kCaptureUnsupported;
    const int status = enqueue(stream, std::string("copy ") + text(kind) + " " + std::to_string(width * rows), [=] {
        Lock lock(mutex);
        char* target = host_view(to.begin, to_bytes);
        const char* source = staged ? staged->data() : host_view(from.begin, from_bytes);
        if (!target || !source) return lose(kIllegalAddress);
        lock.unlock();
        for (size_t row = 0; row < rows; ++row) std::memmove(target + row * to.pitch, source + row * from.pitch, width);
    });
    return waits && status == kSuccess ? finish(stream, lock) : status;
}

}  // namespace

bool is_device(const void* address) {
    const auto* place = static_cast<const char*>(address);
    return place >= addresses && place < addresses + kAddresses;
}

char* contents(const void* address, size_t bytes) {
    if (!is_device(address)) return nullptr;
    const size_t offset = static_cast<size_t>(static_cast<const char*>(address) - addresses);
    auto after = living.upper_bound(offset);
    if (after == living.begin()) return nullptr;
    --after;
    return offset + bytes <= after->first + after->second ? bytes_begin + offset : nullptr;
}

void limit_memory(size_t bytes) { limit = bytes; }

}  // namespace fake

using namespace fake;

extern "C" {

int cudaMalloc(void** memory, size_t bytes) {
    return guarded(__func__, [&](auto&) {
        *memory = nullptr;
        if (const int status = unsafe_call()) return status;
        if (bytes > limit - std::min(used, limit)) return kMemoryAllocation;
        const size_t taken = whole_pages(std::max<size_t>(bytes, 1));
        if (next_offset + taken + page() > kAddresses) std::abort();
        char* begin = bytes_begin + next_offset;
        if (mprotect(begin, taken, PROT_READ | PROT_WRITE) != 0) return kMemoryAllocation;
        std::memset(begin, kPoison, bytes);
        std::memset(begin + bytes, kBeyond, taken - bytes);
        living[next_offset] = bytes;
        *memory = addresses + next_offset;
        used += bytes;
        next_offset += taken + page();  // an inaccessible page stays between
        return kSuccess;
    });
}

int cudaFree(void* memory) {
    Lock lock(mutex);
    if (!memory) return kSuccess;
    const auto found = living.find(static_cast<size_t>(static_cast<char*>(memory) - addresses));
    if (!is_device(memory) || found == living.end()) return remembered(kInvalidValue);
    const auto [offset, bytes] = *found;
    char *end = bytes_begin + offset + bytes, *begin = bytes_begin + offset;
    const size_t taken = whole_pages(std::max<size_t>(bytes, 1));
    // What runs on a lost device ran before it was lost, and may still look its memory up.
    if (lost == kSuccess) living.erase(found);
    when_idle([=, offset = offset] {
        living.erase(offset);
        damaged += std::any_of(end, begin + taken, [](char byte) { return static_cast<unsigned char>(byte) != kBeyond; });
        madvise(begin, taken, MADV_DONTNEED);
        mprotect(begin, taken, PROT_NONE);
    });
    used -= bytes;
    const int status = obstacle(__func__, lock);
    return remembered(status ? status : unsafe_call());
}

int cudaMemGetInfo(size_t* free, size_t* total) {
    return guarded(__func__, [&](auto&) {
        *free = limit - std::min(used, limit);
        *total = limit;
        return kSuccess;
    });
}

int cudaHostAlloc(void** memory, size_t bytes, unsigned flags) {
    return guarded(__func__, [&](auto&) {
        *memory = nullptr;
        if (flags > 7) return kInvalidValue;
        if (const int status = unsafe_call()) return status;
        const size_t taken = whole_pages(std::max<size_t>(bytes, 1));
        char* begin = static_cast<char*>(std::aligned_alloc(page(), taken));
        std::memset(begin, kPoison, taken);
        pinned[begin] = taken;
        *memory = begin;
        return kSuccess;
    });
}

int cudaFreeHost(void* memory) {
    Lock lock(mutex);
    if (!pinned.erase(static_cast<char*>(memory))) return remembered(kInvalidValue);
    when_idle([=] { std::free(memory); });
    const int status = obstacle(__func__, lock);
    return remembered(status ? status : unsafe_call());
}

int cudaHostGetDevicePointer(void** device, void* host, unsigned) {
    return guarded(__func__, [&](auto&) {
        *device = host;  // one address for both, as on every system that CUDA 13 runs on
        return within_pinned(host) ? kSuccess : kInvalidValue;
    });
}

int cudaMemcpyAsync(void* to, const void* from, size_t bytes, int kind, CUstream_st* stream) {
    return guarded(__func__, [&](auto& lock) {
        return enqueue_copy({to, bytes}, {from, bytes}, bytes, 1, kind, stream, lock);
    });
}

int cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width, size_t rows,
                      int kind, CUstream_st* stream) {
    return guarded(__func__, [&](auto& lock) {
        return enqueue_copy({to, to_pitch}, {from, from_pitch}, width, rows, kind, stream, lock);
    });
}

int cudaMemsetAsync(void* memory, int byte, size_t bytes, CUstream_st* stream) {
    return guarded(__func__, [&](auto&) {
        if (bytes > 0 && !contents(memory, bytes) && !within_pinned(memory)) return kInvalidValue;
        return enqueue(stream, "fill " + std::to_string(bytes), [=] {
            Lock lock(mutex);
            char* begin = host_view(memory, bytes);
            if (!begin && bytes > 0) return lose(kIllegalAddress);
            lock.unlock();
            if (bytes > 0) std::memset(begin, byte, bytes);
        });
    });
}

void* fake_cuda_contents(const void* address, size_t bytes) {
    const Lock lock(mutex);
    return host_view(address, bytes);
}

int fake_cuda_live_allocations() {
    const Lock lock(mutex);
    return static_cast<int>(living.size());
}

size_t fake_cuda_live_bytes() {
    const Lock lock(mutex);
    return used;
}

int fake_cuda_live_pinned() {
    const Lock lock(mutex);
    return static_cast<int>(pinned.size());
}

int fake_cuda_damaged_allocations() {
    const Lock lock(mutex);
    return damaged;
}
}
