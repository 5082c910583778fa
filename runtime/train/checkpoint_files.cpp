// Reading a checkpoint: every size and checksum before use, and nothing beyond what is wanted.
#include "runtime/crc32c.hpp"
#include "runtime/formats/mapped_file.hpp"
#include "runtime/train/checkpoint.hpp"
#include "runtime/train/checkpoint_record.hpp"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <utility>

namespace tandem::train {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t most_record_bytes = std::uint64_t{1} << 28;

error in_checkpoint(const fs::path& checkpoint, error why) {
  why.detail = fmt::format("{}: {}", checkpoint.string(), why.detail);
  return why;
}

std::string_view as_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

result<checkpoint_record> read_record(const fs::path& checkpoint) {
  const auto file = formats::mapped_file::open(checkpoint / record_name);
  if (!file) return error{errc::bad_file, file.error().detail, {}};
  if (file->bytes().size() > most_record_bytes)
    return in_checkpoint(checkpoint, {errc::bad_file, "checkpoint.json is too large", {}});
  auto record = decode(as_text(file->bytes()));
  if (!record) return in_checkpoint(checkpoint, record.error());
  if (checkpoint.filename() != checkpoint_path({}, record->facts.step))
    return in_checkpoint(
        checkpoint, {errc::bad_file,
                     fmt::format("it holds step {}, not what its name says", record->facts.step),
                     {}});
  return record;
}

// One of a checkpoint's files, mapped, with its size checked.
class checked_map {
 public:
  static result<checked_map> open(const fs::path& checkpoint, const file_record& record) {
    const fs::path path = checkpoint / record.name;
    auto file = formats::mapped_file::open(path);
    if (!file) return error{errc::bad_file, file.error().detail, {}};
    if (file->bytes().size() != record.bytes)
      return error{errc::bad_file,
                   fmt::format("{} has {} bytes, {} were written", path.string(),
                               file->bytes().size(), record.bytes),
                   {}};
    return checked_map(path, std::move(*file), record);
  }

  // Checks the pieces that [first, first + size) lies in, and copies it out where `to` is given.
  result<void> read(std::size_t first, std::size_t size, std::byte* to,
                    const pause_point& pause = no_pause, const put_bytes& put = {}) const {
    const auto all = file_.bytes();
    ensure(first <= all.size() && size <= all.size() - first, "reading beyond a checkpoint's file");
    for (std::size_t at = first; at < first + size;) {
      const std::size_t piece = at / piece_bytes;
      const std::size_t begin = piece * piece_bytes;
      const auto bytes = all.subspan(begin, std::min(piece_bytes, all.size() - begin));
      if (const auto crc = crc32c(bytes); crc != record_.crc32c[piece])
        return error{
            errc::bad_file,
            fmt::format("{}: bytes {} to {} give the checksum {:08x}, {:08x} was written",
                        path_.string(), begin, begin + bytes.size(), crc, record_.crc32c[piece]),
            {}};
      const std::size_t wanted = std::min(first + size, begin + bytes.size()) - at;
      const auto part = all.subspan(at, wanted);
      if (to != nullptr && put)
        put(part, to + (at - first));
      else if (to != nullptr)
        std::copy(part.begin(), part.end(), to + (at - first));
      file_.drop(bytes);
      at += wanted;
      pause();
    }
    return {};
  }
  std::span<const std::byte> bytes() const { return file_.bytes(); }

 private:
  checked_map(fs::path path, formats::mapped_file file, const file_record& record)
      : path_(std::move(path)), file_(std::move(file)), record_(record) {}

  fs::path path_;
  formats::mapped_file file_;
  file_record record_;
};

result<void> read_floats(const fs::path& checkpoint, const file_record& record,
                         std::size_t first_float, std::span<float> floats, const pause_point& pause,
                         const put_bytes& put) {
  const std::size_t there = record.bytes / sizeof(float);
  if (first_float > there || floats.size() > there - first_float)
    return error{
        errc::conflict,
        fmt::format("{} holds {} numbers, {} from {} on are wanted: it is of another "
                    "model or of other settings",
                    (checkpoint / record.name).string(), there, floats.size(), first_float),
        {}};
  auto map = checked_map::open(checkpoint, record);
  if (!map) return map.error();
  return map->read(first_float * sizeof(float), floats.size_bytes(),
                   std::as_writable_bytes(floats).data(), pause, put);
}

}  // namespace

result<void> check_checkpoint(const fs::path& checkpoint) {
  const auto record = read_record(checkpoint);
  if (!record) return record.error();
  for (const file_record& file : record->files) {
    auto map = checked_map::open(checkpoint, file);
    if (!map) return map.error();
    if (auto good = map->read(0, file.bytes, nullptr); !good) return good;
  }
  return {};
}

result<checkpoint_facts> read_checkpoint_facts(const fs::path& checkpoint) {
  auto record = read_record(checkpoint);
  if (!record) return record.error();
  return std::move(record->facts);
}

result<void> read_parameters(const fs::path& checkpoint, std::span<float> parameters,
                             const pause_point& pause, const put_bytes& put) {
  const auto record = read_record(checkpoint);
  if (!record) return record.error();
  const file_record& file = *record->file(parameters_name);
  if (file.bytes != parameters.size_bytes())
    return error{errc::conflict,
                 fmt::format("{} holds {} parameters, the model has {}: it is of another model or "
                             "of other settings",
                             checkpoint.string(), file.bytes / sizeof(float), parameters.size()),
                 {}};
  return read_floats(checkpoint, file, 0, parameters, pause, put);
}

result<void> read_moments(const fs::path& checkpoint, std::size_t first_float,
                          std::span<float> first, std::span<float> second, const pause_point& pause,
                          const put_bytes& put) {
  const auto record = read_record(checkpoint);
  if (!record) return record.error();
  for (const auto& [name, floats] :
       {std::pair{first_moments_name, first}, std::pair{second_moments_name, second}})
    if (auto read = read_floats(checkpoint, *record->file(name), first_float, floats, pause, put);
        !read)
      return read;
  return {};
}

result<void> read_arena(const fs::path& checkpoint, arena_kind arena, std::size_t first_float,
                        std::span<float> numbers) {
  ensure(has_copy(arena), "an arena that a checkpoint has");
  const auto record = read_record(checkpoint);
  if (!record) return record.error();
  const auto name = arena == arena_kind::parameters      ? parameters_name
                    : arena == arena_kind::first_moments ? first_moments_name
                                                         : second_moments_name;
  return read_floats(checkpoint, *record->file(name), first_float, numbers, no_pause, {});
}

result<std::string> parameters_hash(const fs::path& checkpoint) {
  const auto file = formats::mapped_file::open(checkpoint / parameters_name);
  if (!file) return file.error();
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned int size = 0;
  ensure(EVP_Digest(file->bytes().data(), file->bytes().size(), digest.data(), &size, EVP_sha256(),
                    nullptr) == 1,
         "no SHA-256");
  std::string text;
  for (unsigned int i = 0; i < size; ++i) text += fmt::format("{:02x}", digest[i]);
  return text;
}

}  // namespace tandem::train
