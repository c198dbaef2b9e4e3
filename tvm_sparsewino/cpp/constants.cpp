// Linked into every compiled network: its constants, and the packed function that lends them.
//
// The constants are bytes of the file. The system maps them into memory, page by page as they are
// read; nothing copies them. Compiled in a folder with two files made for the network:
//
//   constants.bin   the bytes, each constant starting at a multiple of 64
//   constants.inc   SHAPES(all extents, constant after constant), and one
//                   CONSTANT(first byte, first extent, dimensions, kind, bits) each

#include <dlpack/dlpack.h>
#include <tvm/ffi/c_api.h>

#include <cstddef>

__asm__(
    ".pushsection .sparsewino,\"a\",%progbits\n"
    ".balign 64\n"
    ".globl sparsewino_bytes\n"
    ".hidden sparsewino_bytes\n"
    "sparsewino_bytes:\n"
    ".incbin \"constants.bin\"\n"
    ".popsection\n");

extern "C" __attribute__((visibility("hidden"))) const char sparsewino_bytes[];

namespace {

#define SHAPES(...) int64_t shapes[] = {__VA_ARGS__};
#define CONSTANT(...)
#include "constants.inc"
#undef SHAPES
#undef CONSTANT

// TVM's tensors keep a pointer to the description that they were made of.
#define SHAPES(...)
#define CONSTANT(first, extents, dimensions, kind, bits)                   \
  {{DLPACK_MAJOR_VERSION, DLPACK_MINOR_VERSION},                           \
   nullptr,                                                                \
   nullptr,                                                                \
   DLPACK_FLAG_BITMASK_READ_ONLY,                                          \
   {const_cast<char*>(sparsewino_bytes) + first, /* nobody writes to it */ \
    {kDLCPU, 0},                                                           \
    dimensions,                                                            \
    {kind, bits, 1},                                                       \
    shapes + extents,                                                      \
    nullptr,                                                               \
    0}},
DLManagedTensorVersioned constants[] = {
#include "constants.inc"
};

constexpr int64_t kCount = sizeof(constants) / sizeof(constants[0]);
constexpr int kAlignment = 64;

}  // namespace

// sparsewino_constant(number) -> tensor
extern "C" __attribute__((visibility("default"))) int __tvm_ffi_sparsewino_constant(
    void*, const TVMFFIAny* args, int32_t num_args, TVMFFIAny* result) {
  if (num_args != 1 || args[0].type_index != kTVMFFIInt || args[0].v_int64 < 0 ||
      args[0].v_int64 >= kCount) {
    TVMFFIErrorSetRaisedFromCStr("ValueError", "expected the number of a constant");
    return -1;
  }
  TVMFFIObjectHandle tensor = nullptr;
  const int failed = TVMFFITensorFromDLPackVersioned(&constants[args[0].v_int64], kAlignment,
                                                     /*require_contiguous=*/1, &tensor);
  if (failed != 0) return failed;
  result->type_index = kTVMFFITensor;
  result->zero_padding = 0;
  result->v_obj = static_cast<TVMFFIObject*>(tensor);
  return 0;
}
