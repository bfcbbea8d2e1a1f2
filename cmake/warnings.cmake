# Warnings are errors on GCC and clang.
add_library(minillm_warnings INTERFACE)
target_compile_options(minillm_warnings INTERFACE -Wall -Wextra -Wshadow -Wconversion -Wswitch -Wnon-virtual-dtor -Werror)
# GCC 12 warns of overlapping copies in "text" + std::to_string(n), wrongly (its bug 105651).
target_compile_options(minillm_warnings INTERFACE $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>)
