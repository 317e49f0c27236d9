// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The module behind importer.h: what a NIC's or a GPU's driver does with a dma-buf. */
#include <linux/delay.h>
#include <linux/dma-buf.h>
#include <linux/dma-mapping.h>
#include <linux/dma-resv.h>
#include <linux/fs.h>
#include <linux/highmem.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/platform_device.h>
#include <linux/uaccess.h>

#include "importer.h"

static struct platform_device *device;

static void look_at_page(struct importer_map *io, struct page *page, u64 number)
{
	u64 *at;

	io->out_elsewhere += page_to_nid(page) != io->node;
	if (!io->fill)
		return;
	at = kmap_local_page(page);
	*at = number;
	kunmap_local(at);
}

/* An importer has addresses for its device, no pages; without an IOMMU they are physical ones. */
static void look_at_part(struct importer_map *io, struct scatterlist *sg)
{
	unsigned int at;

	for (at = 0; at < sg_dma_len(sg); at += PAGE_SIZE)
		look_at_page(io, pfn_to_page(PHYS_PFN(sg_dma_address(sg) + at)),
			     (io->out_bytes + at) >> PAGE_SHIFT);
	io->out_bytes += sg_dma_len(sg);
	io->out_smallest = min_t(u64, io->out_smallest, sg_dma_len(sg));
	io->out_parts++;
}

static void look_at(struct importer_map *io, struct sg_table *table)
{
	struct scatterlist *sg;
	unsigned int i;

	io->out_smallest = U64_MAX;
	for_each_sgtable_dma_sg(table, sg, i) look_at_part(io, sg);
}

static int map(struct importer_map *io, struct dma_buf_attachment *attachment)
{
	enum dma_data_direction direction = io->write ? DMA_BIDIRECTIONAL : DMA_TO_DEVICE;
	struct sg_table *table;

	dma_resv_lock(attachment->dmabuf->resv, NULL);
	table = dma_buf_map_attachment(attachment, direction);
	dma_resv_unlock(attachment->dmabuf->resv);
	if (IS_ERR(table))
		return PTR_ERR(table);
	look_at(io, table);
	msleep(io->hold_ms);
	dma_resv_lock(attachment->dmabuf->resv, NULL);
	dma_buf_unmap_attachment(attachment, table, direction);
	dma_resv_unlock(attachment->dmabuf->resv);
	return 0;
}

static int import(struct importer_map *io)
{
	struct dma_buf *dmabuf = dma_buf_get(io->fd);
	struct dma_buf_attachment *attachment;
	int rc;

	if (IS_ERR(dmabuf))
		return PTR_ERR(dmabuf);
	attachment = dma_buf_attach(dmabuf, &device->dev);
	rc = PTR_ERR_OR_ZERO(attachment);
	if (!rc) {
		rc = map(io, attachment);
		dma_buf_detach(dmabuf, attachment);
	}
	dma_buf_put(dmabuf);
	return rc;
}

static long importer_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	void __user *user = (void __user *)arg;
	struct importer_map io;
	int rc;

	if (cmd != IMPORTER_MAP)
		return -ENOTTY;
	if (copy_from_user(&io, user, sizeof(io)))
		return -EFAULT;
	io.out_bytes = 0;
	io.out_parts = 0;
	io.out_elsewhere = 0;
	rc = import(&io);
	if (!rc && copy_to_user(user, &io, sizeof(io)))
		rc = -EFAULT;
	return rc;
}

static const struct file_operations importer_fops = {
	.owner = THIS_MODULE,
	.unlocked_ioctl = importer_ioctl,
};

static struct miscdevice importer_misc = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "penstock_test",
	.fops = &importer_fops,
	.mode = 0666,
};

static int __init importer_init(void)
{
	int rc;

	device = platform_device_register_simple("penstock_test", PLATFORM_DEVID_NONE, NULL, 0);
	if (IS_ERR(device))
		return PTR_ERR(device);
	dma_set_max_seg_size(&device->dev, UINT_MAX);
	rc = dma_coerce_mask_and_coherent(&device->dev, DMA_BIT_MASK(64));
	if (!rc)
		rc = misc_register(&importer_misc);
	if (rc)
		platform_device_unregister(device);
	return rc;
}

static void __exit importer_exit(void)
{
	misc_deregister(&importer_misc);
	platform_device_unregister(device);
}

module_init(importer_init);
module_exit(importer_exit);
MODULE_AUTHOR("The Penstock authors");
MODULE_DESCRIPTION("Imports a dma-buf, for tests");
MODULE_LICENSE("Dual BSD/GPL");
MODULE_IMPORT_NS(DMA_BUF);
