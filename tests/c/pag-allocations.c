/*
 * Counts the memory that entering and leaving allocate in threads that are new, in a process that has the library from
 * dlopen(3), as Apache's modules have it: then the loader allocates thread-local memory at its first use.
 *
 *     pag-allocations LIBRARY CCACHE CCACHE
 */
#define _GNU_SOURCE
#include <pag.h>

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void __libc_free(void *);
extern void *__libc_memalign(size_t, size_t);

static volatile int is_counting, calls;

static void note(void)
{
    if (is_counting)
        calls++;
}

void *malloc(size_t size)
{
    note();
    return __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    note();
    return __libc_calloc(count, size);
}

void *realloc(void *old, size_t size)
{
    note();
    return __libc_realloc(old, size);
}

void *memalign(size_t alignment, size_t size)
{
    note();
    return __libc_memalign(alignment, size);
}

void free(void *old)
{
    if (old)
        note();
    __libc_free(old);
}

static int (*open_process)(pag_process **, unsigned int);
static int (*create)(pag_process *, const struct pag_seed *, pag **);
static int (*enter)(pag *);
static int (*leave)(pag_process *);
static void (*end)(pag *);
static const char *(*last_error)(void);

static pag_process *process;
static pag *alice, *ended;

/* What a new thread does: a call, and what must come of it. */
struct step {
    const char *name;
    pag **pag;
    int code;
};

static void *count(void *argument)
{
    struct step *step = argument;
    int code;

    calls = 0;
    is_counting = 1;
    code = step->pag ? enter(*step->pag) : leave(process);
    is_counting = 0;
    printf("%s: %d calls of the allocator\n", step->name, calls);
    if (code != step->code) {
        printf("%s: result %d, not %d: %s\n", step->name, code, step->code, last_error());
        exit(1);
    }
    return NULL;
}

static void *found(void *library, const char *name)
{
    void *call = dlsym(library, name);

    if (!call) {
        puts(dlerror());
        exit(1);
    }
    return call;
}

#define FIND(call, name) do { void *it = found(library, name); memcpy(&call, &it, sizeof it); } while (0)

static void must(int code)
{
    if (code == PAG_OK)
        return;
    puts(last_error());
    exit(1);
}

int main(int argc, char **argv)
{
    void *library = dlopen(argc == 4 ? argv[1] : "", RTLD_NOW | RTLD_LOCAL);
    struct pag_seed seed = PAG_SEED_INIT;
    struct step steps[] = {
        { "the first enter of a thread", &alice, PAG_OK },
        { "the first leave of a thread", NULL, PAG_OK },
        { "a failed enter", &ended, PAG_ENDED },
    };
    size_t i;

    if (!library) {
        puts(dlerror());
        return 1;
    }
    FIND(open_process, "pag_process_open");
    FIND(create, "pag_create");
    FIND(enter, "pag_enter");
    FIND(leave, "pag_leave");
    FIND(end, "pag_end");
    FIND(last_error, "pag_last_error");
    must(open_process(&process, 0));
    seed.ccache = argv[2];
    must(create(process, &seed, &alice));
    seed.ccache = argv[3];
    must(create(process, &seed, &ended));
    end(ended);
    for (i = 0; i < sizeof steps / sizeof *steps; i++) {
        pthread_t thread;
        pthread_create(&thread, NULL, count, &steps[i]);
        pthread_join(thread, NULL);
    }
    /* Its thread sleeps in the library's code, which must stay. */
    dlclose(library);
    return 0;
}
