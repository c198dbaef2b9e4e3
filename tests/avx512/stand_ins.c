/* What a kernel calls in TVM's runtime, for a process without TVM and without system calls, and
 * what the emulator calls in a C library newer than the one at hand. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- errors: kept as text for the caller ------------------------------------------------- */

char raised_error[2048];

static void append(const char *text) {
    size_t used = strlen(raised_error);
    while (text && *text && used < sizeof raised_error - 1)
        raised_error[used++] = *text++;
    raised_error[used] = 0;
}

void TVMFFIErrorSetRaisedFromCStrParts(const char *kind, const char **parts, int32_t count) {
    raised_error[0] = 0;
    append(kind);
    append(": ");
    for (int32_t i = 0; i < count; ++i)
        append(parts[i]);
}

void TVMFFIErrorSetRaisedFromCStr(const char *kind, const char *message) {
    TVMFFIErrorSetRaisedFromCStrParts(kind, &message, 1);
}

/* ---- parallel loops: the tasks one after the other ---------------------------------------- */

/* A number that divides few numbers of panels, so that tasks get unequal shares. */
enum { TASKS = 3 };

typedef struct {
    void *sync_handle;
    int32_t num_task;
} ParallelGroupEnv;

typedef int (*ParallelLambda)(int task, ParallelGroupEnv *env, void *data);

int TVMBackendParallelLaunch(ParallelLambda body, void *data, int num_task) {
    ParallelGroupEnv env = {NULL, num_task ? num_task : TASKS};
    for (int task = 0; task < env.num_task; ++task) {
        int failed = body(task, &env, data);
        if (failed)
            return failed;
    }
    return 0;
}

/* ---- scratch: a stack of blocks ----------------------------------------------------------- */

static char arena[64 << 20] __attribute__((aligned(64)));
static size_t used;

/* Bytes of 0xff are NaN as float32: a kernel that reads what it has not written shows it. */
void *TVMBackendAllocWorkspace(int device, int id, uint64_t bytes, int code, int bits) {
    (void)device, (void)id, (void)code, (void)bits;
    size_t rounded = (bytes + 63) & ~(uint64_t)63;
    if (bytes > sizeof arena || rounded > sizeof arena - used)
        return NULL;
    char *block = arena + used;
    used += rounded;
    return memset(block, 0xff, rounded);
}

/* Kernels free in the reverse order of allocation: this drops everything above the block. */
int TVMBackendFreeWorkspace(int device, int id, void *block) {
    (void)device, (void)id;
    used = (size_t)((char *)block - arena);
    return 0;
}

/* ---- the C library ------------------------------------------------------------------------ */

/* The emulator's wheel needs these two names, which came with glibc 2.38. They differ from the
 * old functions in reading binary literals only. */
#if !__GLIBC_PREREQ(2, 38)
unsigned long long __isoc23_strtoull(const char *text, char **end, int base) {
    return strtoull(text, end, base);
}

int __isoc23_sscanf(const char *text, const char *format, ...) {
    va_list values;
    va_start(values, format);
    int count = vsscanf(text, format, values);
    va_end(values);
    return count;
}
#endif
