# Warnings are errors on GCC and clang.
add_library(minillm_warnings INTERFACE)
target_compile_options(minillm_warnings INTERFACE -Wall -Wextra -Wshadow -Wconversion -Wswitch -Wnon-virtual-dtor -Werror)
