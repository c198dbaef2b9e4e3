// Compiled networks on disk: check a file and read its description, without loading it.
//
// The format is described in tvm_sparsewino/artefact.py.
#pragma once

#include <tvm/ffi/extra/json.h>

#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "sha256.h"

namespace sparsewino {

namespace json = tvm::ffi::json;

constexpr int64_t kAnyBatch = -1;

struct TensorInfo {
  std::string name;
  std::vector<int64_t> shape;
  std::string dtype;
};

struct Description {
  std::vector<TensorInfo> inputs, outputs;
  bool returns_tuple;
  std::vector<int64_t> batches;  // sizes that there are functions for beside main, or instead
  std::vector<std::string> features;
};

inline uint64_t LittleEndian(const char* bytes) {
  uint64_t value = 0;
  for (int i = 7; i >= 0; --i) value = value << 8 | static_cast<uint8_t>(bytes[i]);
  return value;
}

// The description's text; throws when the file is missing, cut off or altered.
inline std::string CheckedText(const std::string& path) {
  constexpr uint64_t kFooter = 72;
  const std::string magic = "tvm-sparsewino artefact\n";
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) throw std::runtime_error("cannot be read");
  const uint64_t size = file.tellg();
  char footer[kFooter];
  if (size < kFooter) throw std::runtime_error("not a compiled network: too short");
  file.seekg(size - kFooter);
  file.read(footer, kFooter);
  if (!file || std::string(footer + 48, 24) != magic) {
    throw std::runtime_error("not a compiled network, or cut off");
  }
  const uint64_t library = LittleEndian(footer), text = LittleEndian(footer + 8);
  const std::runtime_error damaged("the file is damaged: its checksum does not match");
  if (library > size || text > size || library + text + kFooter != size) throw damaged;
  Sha256 hash;
  std::vector<char> chunk(1 << 20);
  file.seekg(0);
  for (uint64_t left = library + text; left > 0;) {
    const uint64_t take = left < chunk.size() ? left : chunk.size();
    if (!file.read(chunk.data(), take)) throw damaged;
    hash.Update(chunk.data(), take);
    left -= take;
  }
  hash.Update(footer, 16);
  const auto digest = hash.Digest();
  if (std::memcmp(digest.data(), footer + 16, digest.size()) != 0) throw damaged;
  std::string result(text, '\0');
  file.seekg(library);
  if (!file.read(&result[0], text)) throw damaged;
  return result;
}

inline std::vector<TensorInfo> TensorInfos(const json::Value& value) {
  std::vector<TensorInfo> infos;
  for (const json::Value& item : value.cast<json::Array>()) {
    const auto object = item.cast<json::Object>();
    TensorInfo info;
    info.name = object.at("name").cast<tvm::ffi::String>();
    info.dtype = object.at("dtype").cast<tvm::ffi::String>();
    for (const json::Value& size : object.at("shape").cast<json::Array>()) {
      // A name stands for a batch of any size.
      const auto number = size.try_cast<int64_t>();
      info.shape.push_back(number.has_value() ? *number : kAnyBatch);
    }
    infos.push_back(info);
  }
  return infos;
}

inline Description ReadDescription(const std::string& path) {
  const auto data = json::Parse(CheckedText(path)).cast<json::Object>();
  if (data.at("version").cast<int64_t>() != 4) throw std::runtime_error("of another version");
  Description description;
  description.inputs = TensorInfos(data.at("inputs"));
  description.outputs = TensorInfos(data.at("outputs"));
  for (const json::Value& size : data.at("batches").cast<json::Array>()) {
    description.batches.push_back(size.cast<int64_t>());
  }
  description.returns_tuple = data.at("returns_tuple").cast<bool>();
  for (const json::Value& name : data.at("features").cast<json::Array>()) {
    description.features.push_back(name.cast<tvm::ffi::String>());
  }
  return description;
}

// Those of the features that this CPU lacks, by what Linux reports.
inline std::vector<std::string> MissingFeatures(const std::vector<std::string>& features) {
  // Where Linux has another name than LLVM.
  static const std::map<std::string, std::string> names = {
      {"sse3", "pni"},
      {"sse4.1", "sse4_1"},
      {"sse4.2", "sse4_2"},
      {"bmi", "bmi1"},
      {"lzcnt", "abm"},
      {"avx512vbmi2", "avx512_vbmi2"},
      {"avx512vnni", "avx512_vnni"},
      {"avx512bitalg", "avx512_bitalg"},
      {"avx512vpopcntdq", "avx512_vpopcntdq"},
      {"avx512bf16", "avx512_bf16"},
      {"avx512fp16", "avx512_fp16"},
      {"avxvnni", "avx_vnni"},
  };
  std::ifstream file("/proc/cpuinfo");
  std::set<std::string> flags;
  for (std::string line; flags.empty() && std::getline(file, line);) {
    if (line.compare(0, 5, "flags") != 0) continue;
    std::istringstream words(line);
    for (std::string word; words >> word;) flags.insert(word);
  }
  std::vector<std::string> missing;
  for (const std::string& feature : features) {
    const auto other = names.find(feature);
    if (!flags.count(other == names.end() ? feature : other->second)) missing.push_back(feature);
  }
  return missing;
}

}  // namespace sparsewino
