// cuBLAS without a GPU: a product is counted, by whether it may round its operands to TF32.

#include <cstdlib>

extern "C" {

void stub_count(const char* what);

namespace {
int mode;
constexpr int kTf32 = 3;  // CUBLAS_TF32_TENSOR_OP_MATH
int product(bool of_floats) {
    stub_count("product");
    if (of_floats && mode == kTf32) stub_count("product in TF32");
    return 0;
}
}  // namespace

int cublasCreate_v2(void** handle) {
    *handle = &mode;
    return 0;
}
const char* cublasGetStatusName(int) { return "stub"; }
const char* cublasGetStatusString(int) { return "stub"; }
int cublasGetMathMode(void*, int* found) {
    *found = mode;
    return 0;
}
int cublasSetMathMode(void*, int chosen) {
    mode = chosen;
    return 0;
}
int cublasSgemm_v2(...) { return product(true); }
int cublasSgemmBatched(...) { return product(true); }
int cublasSgemmStridedBatched(...) { return product(true); }
int cublasDgemm_v2(...) { return product(false); }
int cublasDgemmBatched(...) { return product(false); }
int cublasDgemmStridedBatched(...) { return product(false); }
int cublasGemmEx(void*, int, int, int, int, int, const void*, const void*, int type, ...) { return product(type == 0); }
int cublasGemmBatchedEx(void*, int, int, int, int, int, const void*, const void*, int type, ...) {
    return product(type == 0);
}
int cublasGemmStridedBatchedEx(void*, int, int, int, int, int, const void*, const void*, int type, ...) {
    return product(type == 0);
}

}  // extern "C"
