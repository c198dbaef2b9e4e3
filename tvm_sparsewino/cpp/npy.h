// NumPy's .npy files, version 1.0 and 2.0: C order, little endian.
#pragma once

#include <cstdint>
#include <cstdio>
#include <fstream>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

namespace sparsewino {

// NumPy's dtype codes by the names that descriptions use.
inline const std::map<std::string, std::string>& DtypeCodes() {
  static const std::map<std::string, std::string> codes = {
      {"float32", "<f4"}, {"float64", "<f8"}, {"int64", "<i8"}, {"int32", "<i4"}, {"int16", "<i2"},
      {"int8", "|i1"},    {"uint8", "|u1"},   {"bool", "|b1"},
  };
  return codes;
}

inline std::string NpyHeader(const std::string& dtype, const std::vector<int64_t>& shape) {
  std::string sizes;
  for (int64_t size : shape) sizes += std::to_string(size) + (shape.size() == 1 ? "," : ", ");
  if (shape.size() > 1) sizes.resize(sizes.size() - 2);
  return "{'descr': '" + DtypeCodes().at(dtype) + "', 'fortran_order': False, 'shape': (" + sizes +
         "), }";
}

// The header of a .npy file, which is then at its first element.
inline std::string ReadNpyHeader(std::ifstream& file, const std::string& path) {
  char start[12];
  if (!file.read(start, 10)) throw std::runtime_error(path + ": cannot be read");
  const bool wide = start[6] != 1;
  if (std::string(start, 6) != "\x93NUMPY" || (wide && !file.read(start + 10, 2))) {
    throw std::runtime_error(path + ": not a .npy file");
  }
  uint32_t length = 0;
  for (int i = wide ? 11 : 9; i > 7; --i) length = length << 8 | static_cast<uint8_t>(start[i]);
  if (length > 1 << 16) throw std::runtime_error(path + ": not a .npy file");
  std::string header(length, '\0');
  file.read(&header[0], length);
  header.erase(header.find_last_not_of(" \n") + 1);
  return header;
}

// Read an array of this dtype and shape into data; throws when the file holds another one.
inline void ReadNpy(const std::string& path, const std::string& dtype,
                    const std::vector<int64_t>& shape, void* data, size_t bytes) {
  std::ifstream file(path, std::ios::binary);
  const std::string header = ReadNpyHeader(file, path);
  const std::string expected = NpyHeader(dtype, shape);
  if (header != expected) {
    throw std::runtime_error(path + ": expected " + expected + ", got " + header);
  }
  if (!file.read(static_cast<char*>(data), bytes) || file.peek() != EOF) {
    throw std::runtime_error(path + ": holds more or fewer bytes than its shape says");
  }
}

inline void WriteNpy(const std::string& path, const std::string& dtype,
                     const std::vector<int64_t>& shape, const void* data, size_t bytes) {
  std::string header = NpyHeader(dtype, shape);
  header.append(63 - (10 + header.size()) % 64, ' ');
  header += '\n';
  const char start[] = {'\x93', 'N', 'U', 'M', 'P', 'Y', 1, 0,
                        static_cast<char>(header.size() & 255),
                        static_cast<char>(header.size() >> 8)};
  std::ofstream file(path, std::ios::binary);
  file.write(start, sizeof(start));
  file.write(header.data(), header.size());
  file.write(static_cast<const char*>(data), bytes);
  file.close();
  if (!file) throw std::runtime_error(path + ": cannot be written");
}

}  // namespace sparsewino
