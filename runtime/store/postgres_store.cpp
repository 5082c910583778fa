#include "runtime/store/postgres_store.hpp"

#include "runtime/store/postgres_database.hpp"
#include "runtime/store/schema.hpp"
#include "runtime/store/sql_store.hpp"

#include <fmt/format.h>

#include <utility>

namespace tandem::store {

result<std::shared_ptr<store>> open_postgres_store(const postgres_store_options& how) {
  const std::function<bool()> sure = [seat = how.seat] { return seat->sure(); };
  auto writer = postgres_database::open({how.url, how.seat->epoch(), how.lost, sure});
  if (!writer) return writer.error();
  if (auto ready = prepare_schema(**writer); !ready) return ready.error();
  auto reader = postgres_database::open({how.url, 0, {}, sure});
  if (!reader) return reader.error();
  // Never the folder of another store: what that one knows would be strays of this one.
  const auto folder = how.folder / ("postgres-" + how.seat->database_id());
  std::error_code code;
  std::filesystem::create_directories(files_folder(folder), code);
  if (code)
    return error{errc::io, fmt::format("{}: {}", files_folder(folder).string(), code.message()),
                 "store.url"};
  auto opened =
      std::make_shared<sql_store>(folder, how.seat, *std::move(writer), *std::move(reader));
  opened->tidy();
  return std::shared_ptr<store>(std::move(opened));
}

}  // namespace tandem::store
