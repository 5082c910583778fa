# Run at every build: writes build_info.hpp when the commit has changed, and only then, so that one
# file is compiled again and not the rest.
execute_process(COMMAND git -C ${SOURCE} describe --always --dirty --exclude=* --abbrev=12
                OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET
                RESULT_VARIABLE failed)
if(failed OR NOT commit)
  set(commit "unknown")
endif()
set(text "// Written by cmake/build_info.cmake.
#pragma once
#define TANDEM_BUILT_VERSION \"${VERSION}\"
#define TANDEM_BUILT_COMMIT \"${commit}\"
#define TANDEM_BUILT_AS \"${BUILD_TYPE}\"
")
set(before "")
if(EXISTS ${OUTPUT})
  file(READ ${OUTPUT} before)
endif()
if(NOT before STREQUAL text)
  file(WRITE ${OUTPUT} "${text}")
endif()
