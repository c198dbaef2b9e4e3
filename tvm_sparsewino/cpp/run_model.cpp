// Runs a compiled network on arrays, without Python:
//
//   run_model MODEL.so INPUT.npy... OUTPUT.npy...
//
// One file per input and output, in the network's order. Exit codes: 0 fine, 2 bad arguments, 4
// anything else, with one line on stderr.

#include <tvm/ffi/container/array.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/function.h>

#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <thread>

#include "artefact.h"
#include "npy.h"

namespace {

using sparsewino::Description;
using sparsewino::TensorInfo;
using tvm::ffi::Any;
using tvm::ffi::AnyView;
using tvm::ffi::Function;
using tvm::ffi::Module;
using tvm::ffi::Tensor;

constexpr int kBadArguments = 2;
constexpr int kFailed = 4;

// Compiled code loads and stores whole vectors from the first byte of a tensor on.
struct AlignedMemory {
  void AllocData(DLTensor* tensor) {
    constexpr size_t kAlignment = 64;
    const size_t size = tvm::ffi::GetDataSize(*tensor);
    tensor->data = std::aligned_alloc(kAlignment, (size / kAlignment + 1) * kAlignment);
    if (tensor->data == nullptr) throw std::bad_alloc();
  }
  void FreeData(DLTensor* tensor) { std::free(tensor->data); }
};

// Where the batch is open: the batch size of an input file, one of those there are kernels for.
int64_t BatchOf(const TensorInfo& info, const std::vector<int64_t>& batches,
                const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string header = sparsewino::ReadNpyHeader(file, path);
  std::string sizes;
  for (const int64_t batch : batches) {
    std::vector<int64_t> shape = info.shape;
    shape[0] = batch;
    if (header == sparsewino::NpyHeader(info.dtype, shape)) return batch;
    sizes += (sizes.empty() ? "" : ", ") + std::to_string(batch);
  }
  std::vector<int64_t> shape = info.shape;
  shape[0] = batches.at(0);
  throw std::runtime_error(path + ": expected " + sparsewino::NpyHeader(info.dtype, shape) +
                           " with a first size of " + sizes + ", got " + header);
}

// The network with a number for its batch, and the name of its function.
std::string BindBatch(Description* description, const std::vector<std::string>& files) {
  int64_t batch = 0;
  for (size_t i = 0; i < description->inputs.size() && batch == 0; ++i) {
    const TensorInfo& info = description->inputs[i];
    const bool open = !info.shape.empty() && info.shape[0] == sparsewino::kAnyBatch;
    if (open) batch = BatchOf(info, description->batches, files[i]);
  }
  if (batch == 0) return "main";  // also where the batch is known, whether run in pieces or not
  for (auto* infos : {&description->inputs, &description->outputs}) {
    for (TensorInfo& info : *infos) {
      std::replace(info.shape.begin(), info.shape.end(), sparsewino::kAnyBatch, batch);
    }
  }
  return "batch_" + std::to_string(batch);
}

size_t Bytes(const Tensor& tensor) { return tvm::ffi::GetDataSize(*tensor.GetDLTensorPtr()); }

Tensor ReadTensor(const TensorInfo& info, const std::string& path) {
  const DLDataType dtype = tvm::ffi::StringToDLDataType(info.dtype);
  const tvm::ffi::Shape shape(info.shape);
  Tensor tensor = Tensor::FromNDAlloc(AlignedMemory(), shape, dtype, DLDevice{kDLCPU, 0});
  sparsewino::ReadNpy(path, info.dtype, info.shape, tensor.data_ptr(), Bytes(tensor));
  return tensor;
}

void WriteTensor(const TensorInfo& info, const Tensor& tensor, const std::string& path) {
  sparsewino::WriteNpy(path, info.dtype, info.shape, tensor.data_ptr(), Bytes(tensor));
}

Function Get(const Module& module, const std::string& name) {
  const auto function = module->GetFunction(name);
  if (!function.has_value()) throw std::runtime_error("has no function " + name);
  return function.value();
}

// A virtual machine on the CPU; for one thread at a time.
Module LoadMachine(const std::string& path) {
  const Module library = Module::LoadFromFile(path);
  const Module machine = Get(library, "vm_load_executable")().cast<Module>();
  constexpr int kPooledAllocator = 2;
  Get(machine, "vm_initialization")(static_cast<int>(kDLCPU), 0, kPooledAllocator);
  return machine;
}

// As the Python package does, unless the user says otherwise: all cores, threads not bound to any,
// and workers that soon sleep when there is no work.
void SetThreads() {
  const unsigned cores = std::thread::hardware_concurrency();
  if (!std::getenv("OMP_NUM_THREADS")) {
    setenv("TVM_NUM_THREADS", std::to_string(cores ? cores : 1).c_str(), 0);
  }
  setenv("TVM_BIND_THREADS", "0", 0);
  setenv("TVM_THREAD_POOL_SPIN_COUNT", "1000", 0);
}

void Run(const std::string& path, Description description,
         const std::vector<std::string>& files) {
  std::string lacking;
  for (const auto& name : sparsewino::MissingFeatures(description.features)) lacking += " " + name;
  if (!lacking.empty()) throw std::runtime_error("this CPU lacks" + lacking);
  SetThreads();
  const std::string function = BindBatch(&description, files);
  const size_t count = description.inputs.size();
  std::vector<Tensor> tensors;
  for (size_t i = 0; i < count; ++i) {
    tensors.push_back(ReadTensor(description.inputs[i], files[i]));
  }
  const Module machine = LoadMachine(path[0] == '/' ? path : "./" + path);
  const std::vector<AnyView> arguments(tensors.begin(), tensors.end());
  Any result;
  Get(machine, function).CallPacked(arguments.data(), static_cast<int>(count), &result);
  for (size_t i = 0; i < description.outputs.size(); ++i) {
    const Any output =
        description.returns_tuple ? result.cast<tvm::ffi::Array<Any>>()[i] : result;
    WriteTensor(description.outputs[i], output.cast<Tensor>(), files[count + i]);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::cerr << "usage: run_model MODEL.so INPUT.npy... OUTPUT.npy...\n";
    return kBadArguments;
  }
  const std::string path = argv[1];
  const std::vector<std::string> files(argv + 2, argv + argc);
  try {
    const Description description = sparsewino::ReadDescription(path);
    if (files.size() != description.inputs.size() + description.outputs.size()) {
      std::cerr << "run_model: error: " << path << " takes " << description.inputs.size()
                << " inputs and gives " << description.outputs.size() << " outputs, got "
                << files.size() << " files\n";
      return kBadArguments;
    }
    Run(path, description, files);
  } catch (const std::exception& error) {
    const std::string message = error.what();
    std::cerr << "run_model: error: " << path << ": " << message.substr(0, message.find('\n'))
              << "\n";
    return kFailed;
  }
  return 0;
}
