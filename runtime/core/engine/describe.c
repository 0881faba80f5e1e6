/* Describes a module's imports and exports to the supervisor, which shows them to people.
 *
 * Records, little-endian: u8 'i' or 'e'; u8 kind (0 function, 1 global, 2 table, 3 memory, 4 tag,
 * 255 other); u32 length and bytes of the import's module (length 0 for exports), of the name, and
 * of the type as text: "(i32 i32) -> (i32)" for functions, "i32 unshared 1 -" for memories (index
 * type, sharing, minimum and maximum in pages).  */
#include <stdio.h>
#include <string.h>

#include "engine/describe.h"
#include "engine/internal.h"

static const char *valtype(wasm_valtype_t *type) {
  switch (engine.wasm_valtype_kind(type)) {
  case 0: return "i32";
  case 1: return "i64";
  case 2: return "f32";
  case 3: return "f64";
  case 4: return "v128";
  default: return "ref";
  }
}

static void types(FILE *out, wasm_valtype_vec_t *list) {
  fputc('(', out);
  for (size_t i = 0; i < list->size; i++)
    fprintf(out, "%s%s", i ? " " : "", valtype(list->data[i]));
  fputc(')', out);
}

/* Writes the type's text into `text`; cut where it is too long to read anyway. */
static size_t type_text(wasm_externtype_t *type, char *text, size_t size) {
  FILE *out = fmemopen(text, size, "w");
  if (!out)
    return 0;
  wasm_functype_t *function = engine.wasm_externtype_as_functype(type);
  wasm_memorytype_t *memory = engine.wasm_externtype_as_memorytype(type);
  if (function) {
    types(out, engine.wasm_functype_params(function));
    fputs(" -> ", out);
    types(out, engine.wasm_functype_results(function));
  } else if (memory) {
    uint64_t maximum;
    fprintf(out, "%s %s %llu ", engine.wasmtime_memorytype_is64(memory) ? "i64" : "i32",
            engine.wasmtime_memorytype_isshared(memory) ? "shared" : "unshared",
            (unsigned long long)engine.wasmtime_memorytype_minimum(memory));
    if (engine.wasmtime_memorytype_maximum(memory, &maximum))
      fprintf(out, "%llu", (unsigned long long)maximum);
    else
      fputc('-', out);
  }
  fflush(out);
  long length = ftell(out);
  fclose(out);
  if (length < 0)
    return 0;
  return (size_t)length < size ? (size_t)length : size;
}

static void field(FILE *out, const void *bytes, size_t size) {
  uint32_t length = (uint32_t)size;
  fwrite(&length, sizeof length, 1, out);
  if (size)
    fwrite(bytes, 1, size, out);
}

void engine_describe_entry(FILE *out, char what, uint8_t kind, struct ws_bytes module,
                           struct ws_bytes name, struct ws_bytes type) {
  fputc(what, out);
  fputc(kind, out);
  field(out, module.bytes, module.len);
  field(out, name.bytes, name.len);
  field(out, type.bytes, type.len);
}

static struct ws_bytes bytes_of(const wasm_name_t *name) {
  return name ? (struct ws_bytes){(const char *)name->data, name->size} : (struct ws_bytes){0};
}

static void entry(FILE *out, char what, wasm_name_t *module, wasm_name_t *name,
                  wasm_externtype_t *type) {
  char text[4096];
  engine_describe_entry(out, what, (uint8_t)engine.wasm_externtype_kind(type), bytes_of(module),
                        bytes_of(name), (struct ws_bytes){text, type_text(type, text, sizeof text)});
}

int engine_describe(wasmtime_module_t *module, int fd) {
  FILE *out = fdopen(fd, "w");
  if (!out)
    return -1;
  wasm_importtype_vec_t imports;
  engine.wasmtime_module_imports(module, &imports);
  for (size_t i = 0; i < imports.size; i++)
    entry(out, 'i', engine.wasm_importtype_module(imports.data[i]),
          engine.wasm_importtype_name(imports.data[i]), engine.wasm_importtype_type(imports.data[i]));
  engine.wasm_importtype_vec_delete(&imports);
  wasm_exporttype_vec_t exports;
  engine.wasmtime_module_exports(module, &exports);
  for (size_t i = 0; i < exports.size; i++)
    entry(out, 'e', NULL, engine.wasm_exporttype_name(exports.data[i]),
          engine.wasm_exporttype_type(exports.data[i]));
  engine.wasm_exporttype_vec_delete(&exports);
  return fflush(out) == 0 && !ferror(out) ? 0 : -1;
}
