#include "runtime/cuda_handles.h"

#include <vector>

namespace omni2 {
namespace {

struct PutOff {
    int recordings = 0;
    std::vector<std::function<void()>> actions;
};

thread_local PutOff put_off;

}  // namespace

void give_back(std::function<void()> action) {
    if (put_off.recordings > 0) return put_off.actions.push_back(std::move(action));
    action();
}

void recording_begins() { ++put_off.recordings; }

void recording_ends() {
    if (--put_off.recordings > 0) return;
    std::vector<std::function<void()>> actions;
    actions.swap(put_off.actions);
    for (const auto& action : actions) action();
}

}  // namespace omni2
