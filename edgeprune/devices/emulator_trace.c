/*
 * Counts how often each block of instructions runs, and simulates the caches of one core; per operator of the file.
 *
 * Marks, by their mode:
 *   OPERATOR  a memory range, where operator number a1 stores a result: from address a4, a5 bytes.
 *   WARM      from here on, caches are simulated.
 *   START     from here on, everything is counted.
 *   STOP      what was counted goes into QEMU's log (-d plugin -D FILE).
 *
 * Work is counted for the operator that stores the last part of its result next: what runs after an operator's last
 * store belongs to the one that follows. Earlier stores do not tell: memory in which a result will lie is scratch memory
 * of others before. Work after all stores, and all work where no range is known, is that of number -1.
 *
 * The log has lines of these forms, numbers in decimal notation:
 *   memory OPERATOR ACCESSES MISSES... WRITTEN         misses of each level; lines written to memory
 *   block WORDS OPERATOR:TIMES...          WORDS: the instructions, 8 hexadecimal digits each
 *
 * Caches: write-back, write-allocate, replaced least recently used first; each level asks the next. The data of a page
 * lies where it is touched first, page after page, as in an empty machine: so counts do not depend on addresses, which
 * the emulating machine makes random. Instructions and page tables are not simulated, nor is prefetching.
 */
#include "emulator_plugin.h"

#include <stdlib.h>
#include <string.h>

#define OPERATOR (MARK + 1)
#define WARM (MARK + 2)
#define START (MARK + 3)
#define STOP (MARK + 4)

#define LINE_BITS 6
#define PAGE_BITS 12
#define LEVELS 3
#define NOWHERE UINT64_MAX

/* What is counted: accesses, misses of each level, lines written to memory. */
enum { ACCESSES, MISSES, WRITTEN = MISSES + LEVELS, KINDS };

struct block {
    struct block *next;       /* of all blocks */
    struct block *next_dirty; /* of those that ran since the last result was stored */
    uint64_t pending;
    uint64_t *times; /* per operator */
    size_t length;
    uint32_t words[];
};

struct range {
    uint64_t from, to;
    unsigned operator;
};

/* Lines of a set lie in the order of their last use, as line number << 1 | dirty. */
struct cache {
    unsigned set_bits, ways;
    uint64_t *lines;
};

static struct block *blocks, *dirty;
static struct range *ranges;
static size_t range_count, operator_count;
static const struct range *current;
/* Operators in the order of their last stores so far, a ring that begins and ends at operator_count; those that stored
   nothing yet are rings of their own. */
static size_t *before, *after;
static uint64_t pending[KINDS], (*memory)[KINDS];
static struct cache caches[LEVELS];
static unsigned levels;
static _Bool simulating, counting;
static uint64_t last_line = NOWHERE;

/* Page number -> frame number, in an open hash table; a small table in front of it. */
static struct page { uint64_t page, frame; } *pages, recent[256];
static size_t page_slots = 1 << 12, page_count;

static void *allocate(size_t count, size_t size) {
    void *memory = calloc(count ? count : 1, size);
    if (!memory) abort();
    return memory;
}

static struct page *slot_of(struct page *table, size_t slots, uint64_t page) {
    size_t slot = (page * 0x9E3779B97F4A7C15u) >> 20 & (slots - 1);
    while (table[slot].frame && table[slot].page != page) slot = (slot + 1) & (slots - 1);
    return table + slot;
}

static uint64_t frame_of(uint64_t page) {
    struct page *known = recent + (page & 255);
    if (known->frame && known->page == page) return known->frame;
    if (2 * page_count >= page_slots) {
        struct page *larger = allocate(2 * page_slots, sizeof *larger);
        for (size_t i = 0; i < page_slots; i++)
            if (pages[i].frame) *slot_of(larger, 2 * page_slots, pages[i].page) = pages[i];
        free(pages);
        pages = larger;
        page_slots *= 2;
    }
    struct page *slot = slot_of(pages, page_slots, page);
    if (!slot->frame) *slot = (struct page){page, ++page_count};
    *known = *slot;
    return slot->frame;
}

/* Use a line; returns the line that left the cache for it, NOWHERE if none did. *hit says whether it was there. */
static uint64_t use(struct cache *cache, uint64_t line, _Bool stores, _Bool *hit) {
    uint64_t *set = cache->lines + (line & ((1u << cache->set_bits) - 1)) * cache->ways, left = NOWHERE;
    unsigned way = 0;
    while (way < cache->ways && set[way] >> 1 != line) way++;
    *hit = way < cache->ways;
    uint64_t used = *hit ? set[way] : line << 1;
    if (!*hit) left = set[--way];
    memmove(set + 1, set, way * sizeof *set);
    set[0] = used | stores;
    return left;
}

static void use_level(unsigned level, uint64_t line, _Bool stores) {
    if (level == levels) { /* memory */
        pending[WRITTEN] += stores;
        return;
    }
    _Bool hit;
    uint64_t left = use(caches + level, line, stores, &hit);
    if (hit) return;
    if (left != NOWHERE && left & 1) use_level(level + 1, left >> 1, 1);
    /* A line that is written back comes whole, and is not read first. */
    if (stores && level) return;
    pending[MISSES + level]++;
    use_level(level + 1, line, 0);
}

/* Everything that was counted since the last result was stored goes to an operator. */
static void settle(size_t operator) {
    for (struct block *block = dirty; block; block = block->next_dirty) {
        if (!block->times) block->times = allocate(operator_count + 1, sizeof *block->times);
        block->times[operator] += block->pending;
        block->pending = 0;
    }
    dirty = NULL;
    for (unsigned kind = 0; kind < KINDS; kind++) memory[operator][kind] += pending[kind];
    memset(pending, 0, sizeof pending);
}

/* What was counted for one operator belongs to another. */
static void move(size_t from, size_t to) {
    for (struct block *block = blocks; block; block = block->next) {
        if (!block->times) continue;
        block->times[to] += block->times[from];
        block->times[from] = 0;
    }
    for (unsigned kind = 0; kind < KINDS; kind++) memory[to][kind] += memory[from][kind];
    memset(memory[from], 0, sizeof memory[from]);
}

/* An operator stores once more. If others did since its last time, that store was not its last, or not its own. */
static void stores_last(size_t operator) {
    if (after[operator] == operator_count) return;
    if (after[operator] != operator) {
        move(operator, after[operator]);
        after[before[operator]] = after[operator];
        before[after[operator]] = before[operator];
    }
    before[operator] = before[operator_count];
    after[operator] = operator_count;
    after[before[operator]] = before[operator_count] = operator;
}

static void stored(uint64_t address) {
    if (!range_count || address < ranges[0].from || address >= ranges[range_count - 1].to) return;
    if (address < current->from || address >= current->to) {
        size_t low = 0, high = range_count;
        while (high - low > 1) {
            size_t middle = (low + high) / 2;
            if (ranges[middle].from <= address) low = middle;
            else high = middle;
        }
        if (address >= ranges[low].to) return;
        current = ranges + low;
    }
    stores_last(current->operator);
    settle(current->operator);
}

static void accessed(unsigned int cpu, uint32_t info, uint64_t address, void *data) {
    if (!simulating) return;
    _Bool stores = qemu_plugin_mem_is_store(info);
    uint64_t end = address + (1u << qemu_plugin_mem_size_shift(info)) - 1;
    pending[ACCESSES]++;
    for (uint64_t line = address >> LINE_BITS; line <= end >> LINE_BITS; line++) {
        if (line == last_line && !stores) continue;
        last_line = line;
        unsigned shift = PAGE_BITS - LINE_BITS;
        use_level(0, frame_of(line >> shift) << shift | (line & ((1u << shift) - 1)), stores);
    }
    if (stores && counting) stored(address);
}

static void block_runs(unsigned int cpu, void *data) {
    struct block *block = data;
    if (!counting) return;
    if (!block->pending++) {
        block->next_dirty = dirty;
        dirty = block;
    }
}

static void block_translated(uint64_t plugin, struct qemu_plugin_tb *translated) {
    size_t length = qemu_plugin_tb_n_insns(translated);
    struct block *block = allocate(1, sizeof *block + length * sizeof *block->words);
    block->length = length;
    for (size_t i = 0; i < length; i++) {
        struct qemu_plugin_insn *instruction = qemu_plugin_tb_get_insn(translated, i);
        memcpy(block->words + i, qemu_plugin_insn_haddr(instruction), sizeof *block->words);
        qemu_plugin_register_vcpu_mem_cb(instruction, accessed, 0, 3, NULL);
    }
    block->next = blocks;
    blocks = block;
    qemu_plugin_register_vcpu_tb_exec_cb(translated, block_runs, 0, block);
}

static int by_address(const void *a, const void *b) {
    const struct range *one = a, *other = b;
    return (one->from > other->from) - (one->from < other->from);
}

static void add_range(uint64_t operator, uint64_t from, uint64_t bytes) {
    ranges = realloc(ranges, (range_count + 1) * sizeof *ranges);
    if (!ranges) abort();
    ranges[range_count++] = (struct range){from, from + bytes, operator};
    if (operator >= operator_count) operator_count = operator + 1;
}

static void start(void) {
    qsort(ranges, range_count, sizeof *ranges, by_address);
    current = ranges;
    memory = allocate(operator_count + 1, sizeof *memory);
    before = allocate(operator_count + 1, sizeof *before);
    after = allocate(operator_count + 1, sizeof *after);
    for (size_t i = 0; i <= operator_count; i++) before[i] = after[i] = i;
    memset(pending, 0, sizeof pending);
    counting = 1;
}

static int number_of(size_t operator) { return operator < operator_count ? (int)operator : -1; }

static void stop(void) {
    char text[100];
    settle(operator_count);
    simulating = counting = 0;
    for (size_t i = 0; i <= operator_count; i++) {
        snprintf(text, sizeof text, "memory %d %" PRIu64, number_of(i), memory[i][ACCESSES]);
        qemu_plugin_outs(text);
        for (unsigned level = 0; level < levels; level++) {
            snprintf(text, sizeof text, " %" PRIu64, memory[i][MISSES + level]);
            qemu_plugin_outs(text);
        }
        snprintf(text, sizeof text, " %" PRIu64 "\n", memory[i][WRITTEN]);
        qemu_plugin_outs(text);
    }
    for (struct block *block = blocks; block; block = block->next) {
        if (!block->times) continue;
        qemu_plugin_outs("block ");
        for (size_t i = 0; i < block->length; i++) {
            snprintf(text, sizeof text, "%08x", block->words[i]);
            qemu_plugin_outs(text);
        }
        for (size_t i = 0; i <= operator_count; i++) {
            if (!block->times[i]) continue;
            snprintf(text, sizeof text, " %d:%" PRIu64, number_of(i), block->times[i]);
            qemu_plugin_outs(text);
        }
        qemu_plugin_outs("\n");
    }
}

static void system_call(uint64_t plugin, unsigned int cpu, int64_t number, uint64_t a1, uint64_t a2, uint64_t a3,
                        uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8) {
    if (number != FACCESSAT) return;
    switch ((uint32_t)a3) {
    case OPERATOR: add_range(a1, a4, a5); break;
    case WARM: simulating = 1; break;
    case START: start(); break;
    case STOP: stop(); break;
    }
}

static struct cache cache_of(unsigned long bytes, unsigned ways) {
    struct cache cache = {0, ways, NULL};
    while ((2ul << cache.set_bits) * ways << LINE_BITS <= bytes) cache.set_bits++;
    size_t lines = (size_t)ways << cache.set_bits;
    cache.lines = malloc(lines * sizeof *cache.lines);
    if (!cache.lines) abort();
    memset(cache.lines, 0xFF, lines * sizeof *cache.lines);
    return cache;
}

/* Arguments: cache=BYTES/WAYS for each level, from the first on. */
__attribute__((visibility("default"))) int qemu_plugin_install(uint64_t id, const void *info, int argc, char **argv) {
    unsigned long bytes;
    unsigned ways;
    pages = allocate(page_slots, sizeof *pages);
    for (int i = 0; i < argc; i++) {
        if (levels == LEVELS || sscanf(argv[i], "cache=%lu/%u", &bytes, &ways) != 2) return 1;
        caches[levels++] = cache_of(bytes, ways);
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, block_translated);
    qemu_plugin_register_vcpu_syscall_cb(id, system_call);
    return 0;
}
