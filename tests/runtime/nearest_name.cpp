#include "runtime/nearest_name.hpp"

#include <catch2/catch.hpp>

#include <vector>

namespace {

TEST_CASE("edits are inserted, deleted, replaced and swapped letters") {
  CHECK(tandem::edit_distance("port", "port") == 0);
  CHECK(tandem::edit_distance("", "port") == 4);
  CHECK(tandem::edit_distance("prot", "port") == 1);
  CHECK(tandem::edit_distance("chat", "chats") == 1);
  CHECK(tandem::edit_distance("kitten", "sitting") == 3);
}

TEST_CASE("the nearest known name is found, and none when all are far") {
  const std::vector<std::string> names = {"chat", "status", "models", "up"};
  CHECK(tandem::nearest_name("chta", names) == "chat");
  CHECK(tandem::nearest_name("stauts", names) == "status");
  CHECK(tandem::nearest_name("model", names) == "models");
  CHECK_FALSE(tandem::nearest_name("zebra", names));
  CHECK_FALSE(tandem::nearest_name("xy", names));
}

}  // namespace
