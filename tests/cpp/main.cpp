// Runs the tests of this program whose name contains the argument, or all.
#include <chrono>
#include <cstdio>
#include <exception>

#include "check.h"

int main(int argc, char** argv) {
    using Clock = std::chrono::steady_clock;
    const std::string wanted = argc > 1 ? argv[1] : "";
    int run = 0, failed = 0;
    for (const auto& test : omni2::test::tests()) {
        if (test.name.find(wanted) == std::string::npos) continue;
        ++run;
        const Clock::time_point start = Clock::now();
        std::string why;
        try {
            test.body();
        } catch (const std::exception& error) {
            why = error.what();
        } catch (...) {
            why = "threw something that is no exception";
        }
        const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
        std::printf("%s  %6.3f s  %s\n", why.empty() ? "ok    " : "FAILED", seconds, test.name.c_str());
        if (!why.empty()) std::printf("        %s\n", why.c_str());
        std::fflush(stdout);
        failed += !why.empty();
    }
    std::printf("%d tests, %d failed\n", run, failed);
    return failed > 0 || run == 0;
}
