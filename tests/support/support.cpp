// support.cpp - makes every support header compile on its own.
#include "support/expect_error.h"
#include "support/gguf_writer.h"
#include "support/golden.h"
#include "support/models.h"
#include "support/quantised.h"
#include "support/random.h"
#include "support/safetensors_writer.h"
#include "support/temp_folder.h"
