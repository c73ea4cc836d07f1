// Tests in C++: TEST("what holds") { ... CHECK(...); }. A test fails at its first check that does not hold; main.cpp
// runs them all and exits 1 if one failed.
#pragma once

#include <functional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace omni2::test {

struct Failed : std::runtime_error {
    using std::runtime_error::runtime_error;
};

struct Test {
    std::string name;
    std::function<void()> body;
};

inline std::vector<Test>& tests() {
    static std::vector<Test> all;
    return all;
}

inline bool add(std::string name, std::function<void()> body) {
    tests().push_back({std::move(name), std::move(body)});
    return true;
}

[[noreturn]] inline void fail(const char* file, int line, const std::string& what) {
    throw Failed(std::string(file) + ":" + std::to_string(line) + ": " + what);
}

template <class T>
std::string shown(const T& value) {
    std::ostringstream out;
    out << std::boolalpha << value;
    return out.str();
}

template <class T>
std::string shown(const std::vector<T>& values) {
    std::string all = "{";
    for (const T& value : values) all += (all.size() > 1 ? ", " : "") + shown(value);
    return all + "}";
}

template <class A, class B>
void check_equal(const A& a, const B& b, const char* text, const char* file, int line) {
    if (!(a == b)) fail(file, line, std::string(text) + ": " + shown(a) + " is not " + shown(b));
}

// What function() throws as an Error; fails if it throws nothing. Anything else it throws passes through.
template <class Error, class Function>
Error thrown(Function function, const char* text, const char* file, int line) {
    try {
        function();
    } catch (const Error& error) {
        return error;
    }
    fail(file, line, std::string(text) + " threw nothing");
}

}  // namespace omni2::test

#define OMNI2_JOIN_(a, b) a##b
#define OMNI2_JOIN(a, b) OMNI2_JOIN_(a, b)
#define TEST(name)                                                                                                \
    static void OMNI2_JOIN(test_, __LINE__)();                                                                    \
    static const bool OMNI2_JOIN(added_, __LINE__) = ::omni2::test::add(name, OMNI2_JOIN(test_, __LINE__));       \
    static void OMNI2_JOIN(test_, __LINE__)()

#define CHECK(condition) \
    if (!(condition)) ::omni2::test::fail(__FILE__, __LINE__, #condition " does not hold")
#define CHECK_EQUAL(a, b) ::omni2::test::check_equal((a), (b), #a " == " #b, __FILE__, __LINE__)
#define CHECK_THROWS(Error, expression) \
    ::omni2::test::thrown<Error>([&] { expression; }, #expression, __FILE__, __LINE__)
