#include "cuda/handles.h"

#include <vector>

namespace omni2 {
namespace {

// CUDA's rule is about the thread (kCudaCaptureThreadLocal), so the list is one of the thread.
thread_local int captures = 0;
thread_local std::vector<std::function<void()>> postponed;

}  // namespace

void release(std::function<void()> function) {
    if (captures > 0)
        postponed.push_back(std::move(function));
    else
        function();
}

void capture_begins() { ++captures; }

void capture_ends() {
    if (--captures > 0) return;
    const auto functions = std::exchange(postponed, {});
    for (const auto& function : functions) function();
}

}  // namespace omni2
