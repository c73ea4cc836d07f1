// A stack of its own that can be left and gone on with: what a thread of an emulated block runs on.
#pragma once

#include <cstddef>
#include <cstdint>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace omni2::emulation {

#if defined(__x86_64__)

// Some ten instructions; the system's own swapcontext makes two system calls, and a launch has a hundred thousand switches.
class Context {
public:
    // Begins with function() on the given stack when it is first switched to; function never returns.
    void begin(void* stack, size_t bytes, void (*function)()) {
        auto* top = reinterpret_cast<uint64_t*>((reinterpret_cast<uintptr_t>(stack) + bytes) & ~uintptr_t{15});
        *--top = 0;                                            // where function would return to, which it does not
        *--top = reinterpret_cast<uint64_t>(function);         // where the switch returns to
        for (int i = 0; i < kSavedRegisters; ++i) *--top = 0;
        pointer_ = top;
    }

    // Goes on with `next`, until something switches back to this one.
    void switch_to(Context& next) { omni2_emulation_switch(&pointer_, next.pointer_); }

private:
    static constexpr int kSavedRegisters = 6;  // those a function must leave as they were
    static void omni2_emulation_switch(void** keep, void* next) asm("omni2_emulation_switch");

    void* pointer_ = nullptr;
};

#else

class Context {
public:
    void begin(void* stack, size_t bytes, void (*function)()) {
        getcontext(&context_);
        context_.uc_stack.ss_sp = stack;
        context_.uc_stack.ss_size = bytes;
        context_.uc_link = nullptr;
        makecontext(&context_, function, 0);
    }

    void switch_to(Context& next) { swapcontext(&context_, &next.context_); }

private:
    ucontext_t context_;
};

#endif

}  // namespace omni2::emulation
