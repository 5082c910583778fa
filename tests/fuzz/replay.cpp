// Runs a fuzz target over kept inputs without libFuzzer: each FILE or folder named, each input
// whole and cut in the middle. Ends by a crash or with a line that counts.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

int replay(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string input((std::istreambuf_iterator<char>(file)), {});
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(input.data());
  int runs = 0;
  for (std::size_t size : {input.size(), input.size() - input.size() / 7, input.size() / 2}) {
    LLVMFuzzerTestOneInput(bytes, size);
    ++runs;
  }
  return runs;
}

}  // namespace

int main(int argc, char** argv) {
  int runs = 0;
  for (int i = 1; i < argc; ++i) {
    const std::filesystem::path named(argv[i]);
    if (!std::filesystem::is_directory(named)) {
      runs += replay(named);
      continue;
    }
    for (const auto& entry : std::filesystem::recursive_directory_iterator(named))
      if (entry.is_regular_file()) runs += replay(entry.path());
  }
  std::printf("%d runs\n", runs);
  return runs > 0 ? 0 : 1;
}
